"""Which names of a PyTorch file are those of the encoder.

Everybody puts another prefix before the names of the encoder. Here it is found
from the names themselves, by a rule that covers these. The sources of
mmpretrain, mmselfsup, lightly, lightning-bolts, vissl and transformers were
read; the others' names are from their documentation and from what people report
of their files:

  conv1.…, fc.…                      pytorch/vision, facebookresearch/dino
  module.…                           any nn.DataParallel
  state_dict.module.encoder_q.…      facebookresearch/moco (encoder_k, queue)
  state_dict.module.base_encoder.…   facebookresearch/moco-v3 (momentum_encoder)
  backbone.0.…, backbone.4.…         lightly-ai/lightly, examples: an
                                     nn.Sequential (backbone_momentum)
  state_dict.backbone.…              lightly-ai/lightly, benchmarks
                                     (teacher_backbone); vturrisi/solo-learn
                                     (momentum_backbone), formerly
                                     state_dict.encoder.… (momentum_encoder)
  state_dict.backbone.…              open-mmlab/mmpretrain and mmselfsup
                                     (target_net.module.0)
  state_dict.online_net.0.…          open-mmlab/mmselfsup before 1.0, beside the
                                     same arrays as backbone.… (target_net.0)
  state_dict.online_network.encoder.… Lightning-Universe/lightning-bolts
  online_encoder.net.…               lucidrains/byol-pytorch, beside the same
                                     arrays as net.… (target_encoder.net)
  online_network_state_dict.encoder.… sthalles/PyTorch-BYOL, an nn.Sequential
  classy_state_dict.base_model.model.trunk._feature_blocks.…
                                     facebookresearch/vissl
  resnet.embedder.…                  huggingface/transformers
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

from byol_flax.weights import torch_names
from byol_flax.weights.errors import WeightsError

# Two arrays that each network has, in each naming.
_MARKS = {
  naming: [
    torch_names.name_of(torch_names.Place("params", path), naming)
    for path in ("stem_conv/kernel", "group0_block0/conv0/kernel")
  ]
  for naming in torch_names.NAMINGS
}
# Words of a prefix that tell the target network, and the online one.
_TARGET = {"target", "momentum", "teacher", "ema", "k", "key", "averaged"}
_MOST = 16  # encoders in a file, of which one is meant
_ONLINE = {"online", "student", "q", "query"}
# What else stands beside the layers of a network, or of a training: the words
# of its name, and what it is.
_OTHERS = (
  ({"fc", "head", "heads", "classifier", "clf", "linear"}, "a classifier"),
  (
    {"projector", "projection", "proj", "mlp", "neck"}
    | {"predictor", "prediction", "prototypes"},
    "a head of self-supervised training",
  ),
  ({"optimizer", "optimizers", "optim", "optimiser"}, "an optimizer's state"),
  ({"queue", "ptr"}, "MoCo's queue of negatives"),
)


@dataclasses.dataclass(frozen=True)
class Found:
  """Where the encoder lies.

  Attributes:
    naming: of its arrays, a key of `torch_names.NAMINGS`.
    prefix: of its names, which ends with a dot or is empty.
    names: place in our trees -> name in the file.
    ignored: names, or beginnings of names, that are not the encoder's, with a
      reason each.
  """

  naming: str
  prefix: str
  names: Mapping[torch_names.Place, str]
  ignored: dict[str, str]


def find(names: Iterable[str]) -> Found:
  """Finds the online encoder among the names of a file's arrays.

  Raises:
    WeightsError: there is none, or several could be meant, or names under its
      prefix are none that a ResNet has.
  """
  names = list(names)
  candidates = _candidates(names)
  if len(candidates) > _MOST:
    raise WeightsError(f"It holds {len(candidates):,} encoders.")
  naming, prefix = _chosen(candidates, names)
  places: dict[torch_names.Place, str] = {}
  ignored: dict[str, str] = {}
  left_over = []
  others = tuple(
    p for _, p in candidates if p != prefix and p.startswith(prefix)
  )
  for name in names:
    inside = name.startswith(prefix) and not name.startswith(others)
    beginning = _beginning(name, prefix)
    if inside and (
      place := torch_names.place_of(name.removeprefix(prefix), naming)
    ):
      places[place] = name
    elif not inside:
      ignored[beginning] = _reason(beginning) or (
        f"It lies outside of the encoder, whose names begin with {prefix!r}."
        if prefix
        else "It lies outside of the encoder."
      )
    elif reason := _reason(beginning.removeprefix(prefix)):
      ignored[beginning] = reason
    else:
      left_over.append(name)
  if left_over:
    raise WeightsError(
      f"Its {_listed(left_over)} under the encoder's prefix {prefix!r} "
      f"{'is' if len(left_over) == 1 else 'are'} no part of a ResNet as "
      "torchvision builds it."
    )
  return Found(naming, prefix, places, ignored)


def _candidates(names: list[str]) -> list[tuple[str, str]]:
  """(naming, prefix) of all encoders."""
  known = set(names)
  found = []
  for naming, (stem, block) in _MARKS.items():
    for name in names:
      prefix = name.removesuffix(stem)
      if (
        prefix != name
        and (not prefix or prefix.endswith("."))
        and prefix + block in known
      ):
        found.append((naming, prefix))
  return found


def _chosen(
  candidates: list[tuple[str, str]], names: list[str]
) -> tuple[str, str]:
  """The candidate that is the online network, or the only one."""
  if not candidates:
    shown = ", ".join(sorted({n.split(".")[0] for n in names})[:8])
    raise WeightsError(
      "It holds no ResNet in the names of torchvision or Hugging Face: there "
      "is no conv1.weight with a layer1.0.conv1.weight beside it. Its names "
      f"begin with {shown or 'nothing, as it holds no arrays'}."
    )
  remaining = [c for c in candidates if not _words(c[1]) & _TARGET]
  remaining = remaining or candidates
  if len(remaining) > 1:
    online = [c for c in remaining if _words(c[1]) & _ONLINE]
    remaining = online or remaining
  if len(remaining) > 1:
    listed = " and ".join(repr(prefix) for _, prefix in remaining)
    raise WeightsError(
      f"It holds {len(remaining)} encoders, and none is known to be the one "
      f"that is meant: their names begin with {listed}. Save one of them in a "
      "file of its own."
    )
  return remaining[0]


def _words(text: str) -> set[str]:
  return set(re.split(r"[._]", text.lower()))


def _beginning(name: str, prefix: str) -> str:
  """The shortest beginning of a name, up to a dot, that `prefix` has not."""
  end = 0
  while prefix.startswith(name[:end]):
    end = name.find(".", end) + 1
    if not end:
      return name
  return name[:end]


def _reason(beginning: str) -> str | None:
  """Why an encoder does not need names with that beginning, if known."""
  words = _words(beginning)
  for known, what in _OTHERS:
    if words & known:
      return f"It belongs to {what}."
  if words & _TARGET:
    return "It belongs to the target network; the online network is read."
  return None


def _listed(names: list[str]) -> str:
  more = len(names) - 3
  return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")
