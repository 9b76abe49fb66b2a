"""What no shape of a network tells: its padding, BatchNorm and images."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Self

from byol_flax import bounds
from byol_flax.models import pixels
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.pickle_input import shown

# The key under which an export says this of itself, in the metadata of its
# .safetensors file.
KEY = "byol_flax"
_LIMITS: Mapping[str, bounds.Bound] = {
  "kind": bounds.OneOf("encoder", "state"),
  "padding": bounds.OneOf("same", "symmetric"),
  "decay": bounds.Real(0, 1),
  "epsilon": bounds.Real(0, 1),
  "input_scaling": bounds.OneOf("imagenet", "unit"),
  "image_size": bounds.Whole(1, 10_000),
  "crop_ratio": bounds.Real(0, 1, above=True),
}

# What Hugging Face's config.json must say for the network to be ours.
_DEFAULTS: Mapping[str, Any] = {
  "num_channels": 3,
  "hidden_act": "relu",
  "downsample_in_first_stage": False,
  "downsample_in_bottleneck": False,
}
_RESNET = {"model_type": "resnet", **_DEFAULTS}


@dataclasses.dataclass(frozen=True)
class Description:
  """What has to be known of a network besides its arrays.

  Attributes:
    kind: "encoder", or "state" of a training, with both networks.
    padding: "same" or "symmetric", see `layers.pads`.
    decay: of BatchNorm's averages.
    epsilon: of BatchNorm.
    input_scaling: see `pixels.scale`.
    image_size: pixels that the network is usually shown.
    crop_ratio: of the evaluation crop.
    step: completed updates, if known.
  """

  kind: str = "encoder"
  # As PyTorch has them by default: torch.nn.BatchNorm2d, and torchvision's
  # evaluation (references/classification: resize to 256, crop 224).
  padding: str = "symmetric"
  decay: float = 0.9
  epsilon: float = 1e-5
  input_scaling: str = "imagenet"
  image_size: int = 224
  crop_ratio: float = 0.875
  step: int | None = None

  @classmethod
  def parse(cls, text: str) -> Self:
    """What an export says of itself, in JSON.

    Raises:
      WeightsError: it is damaged.
    """
    values = parsed(text, "The description in its metadata")
    names = {field.name for field in dataclasses.fields(cls)}
    if set(values) != names:
      raise WeightsError(
        f"The description in its metadata has the entries {sorted(values)}; "
        f"expected {sorted(names)}. It was exported by another version."
      )
    step = values["step"]
    limits = _LIMITS if step is None else {**_LIMITS, "step": bounds.Whole(0)}
    for name, limit in limits.items():
      if not limit.fits(values[name]):
        raise WeightsError(
          f"Its description says {name}={shown(repr(values[name]))}; "
          f"expected {limit}."
        )
    return cls(**values)

  def text(self) -> str:
    """The inverse of `parse`."""
    return json.dumps(dataclasses.asdict(self))

  @property
  def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, deviation) of the channels of pixels in [0, 1]."""
    if self.input_scaling == "unit":
      return (0.0,) * 3, (1.0,) * 3
    return pixels.IMAGENET_MEAN, pixels.IMAGENET_STD


def parsed(text: str, name: str) -> dict[str, Any]:
  """A JSON object; `name` begins the sentence that says that it is none."""
  try:
    values = json.loads(text)
  except (ValueError, RecursionError):
    values = None
  if not isinstance(values, dict):
    raise WeightsError(f"{name} is no JSON object.")
  return values


def of_huggingface(
  config: Mapping[str, Any], processor: Mapping[str, Any] | None
) -> Description:
  """The description of a Hugging Face folder.

  Args:
    config: of config.json.
    processor: of preprocessor_config.json, if there is one.

  Raises:
    WeightsError: the network, or its normalisation, is none of ours.
  """
  for name, value in _RESNET.items():
    # Of what equals its default, transformers writes nothing.
    if (given := {**_DEFAULTS, **config}.get(name)) != value:
      raise WeightsError(
        f"Its config.json says {name}={shown(repr(given))}; expected {value!r}."
      )
  if processor is None:
    return Description()
  size, ratio = _crop(processor)
  return Description(
    input_scaling=_scaling(processor), image_size=size, crop_ratio=ratio
  )


def _scaling(processor: Mapping[str, Any]) -> str:
  """The input scaling of a preprocessor_config.json."""
  unit, imagenet = (
    Description(input_scaling=how).normalisation for how in ("unit", "imagenet")
  )
  mean = processor.get("image_mean", list(imagenet[0]))
  std = processor.get("image_std", list(imagenet[1]))
  if not processor.get("do_normalize", True):
    mean, std = map(list, unit)
  for how, known in (("unit", unit), ("imagenet", imagenet)):
    if [mean, std] == [list(known[0]), list(known[1])]:
      return how
  raise WeightsError(
    f"Its preprocessor_config.json normalises by mean {shown(repr(mean))} and "
    f"deviation {shown(repr(std))}; expected ImageNet's, {list(imagenet[0])} "
    f"and {list(imagenet[1])}, or none."
  )


def _crop(processor: Mapping[str, Any]) -> tuple[int, float]:
  """(size, ratio) of the crop of a preprocessor_config.json."""
  sides = [_side(processor.get(name)) for name in ("size", "crop_size")]
  resized, cropped = sides
  if resized is None:
    return Description.image_size, Description.crop_ratio
  if cropped is None or not processor.get("do_center_crop", True):
    # A ConvNext processor resizes to size / crop_pct.
    ratio = processor.get("crop_pct") or 1.0
    return resized, ratio if _LIMITS["crop_ratio"].fits(ratio) else 1.0
  return cropped, min(cropped / resized, 1.0)


def _side(value: Any) -> int | None:
  """Pixels of a size, which is written in several ways."""
  if isinstance(value, Mapping):
    value = value.get("shortest_edge", value.get("height"))
  return value if _LIMITS["image_size"].fits(value) else None
