"""What is found in a weight file, in the names and layouts of this project."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from byol_flax.weights import arrays


@dataclasses.dataclass(frozen=True)
class Account:
  """Which names of a file became arrays of a network.

  No name that a network needs may be missing, and no name of a network that is
  read may be left over; whoever reads a file raises WeightsError then.

  Attributes:
    matched: how many arrays were taken.
    ignored: names, or beginnings of names, that are not part of what is read,
      such as a classifier's or an optimizer's, with a reason each.
  """

  matched: int
  ignored: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Foreign:
  """Weights of another program, or exported by this one.

  Attributes:
    format: what the file is, such as "deepmind", "torchvision" or "byol".
    networks: "online", and "target" if the file has one, each with "params" and
      "batch_stats". These are trees of `arrays.Stored` as Flax has them, with a
      network's modules at the top: "encoder", and of "projector", "predictor"
      and "classifier" those that the file has. Each BatchNorm's statistics are
      "mean", "variance" [C] and "count" [] int32.
    momentum: of the online network's optimizer, a tree as its "params"; None if
      the file has none.
    step: completed updates; None if the file does not tell.
    model: what the section `model` of a config says of such a network; heads
      that the file lacks are left out, see `structure.completed`.
    image_size: pixels that the network is usually shown.
    crop_ratio: of the evaluation crop, see `augment.EvalCrop`.
    account: of its names.
    details: what else is worth telling about the origin, for JSON.
      "trained_by", if it is known, is what `own_runs.trained_by` says, and
      "trained_on" the section `data` of a run's config.
  """

  format: str
  networks: Mapping[str, Mapping[str, arrays.Tree]]
  momentum: arrays.Tree | None
  step: int | None
  model: dict[str, Any]
  image_size: int
  crop_ratio: float
  account: Account
  details: Mapping[str, Any]

  @property
  def training(self) -> str:
    """Says how it was trained, after a comma; "" if that is not known."""
    how = {"byol": ", trained by BYOL", "labels": ", trained with labels"}
    return how.get(str(self.details.get("trained_by")), "")

  @property
  def encoder(self) -> dict[str, arrays.Tree]:
    """The online encoder's "params" and "batch_stats"."""
    online = self.networks["online"]
    return {name: tree["encoder"] for name, tree in online.items()}
