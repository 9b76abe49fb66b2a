"""Shows that weights were carried over, or refuses them.

Two things are shown. What was written is read again, and every array must be
the same to the last bit. And where the other program is installed, it computes
the features of a few images, which must be ours.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from byol_flax.models import resnet
from byol_flax.weights import arrays, artifact
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Foreign

# Largest difference of features that passes, as a share of the largest feature:
# what float32 leaves when sums are taken in another order.
LIMIT = 1e-4
_IMAGES = 4

# Images, uint8 [B, S, S, 3], to features, float32 [B, F].
Features = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """How far the features of another program are from ours.

  Attributes:
    side: the program with its version, or how to install it.
    difference: as a share of the largest feature; None if not installed.
  """

  side: str
  difference: float | None

  def __str__(self) -> str:
    if self.difference is None:
      return f"features: not compared, for want of {self.side}"
    return (
      f"features: {_IMAGES} fixed images through {self.side} differ by "
      f"{self.difference:.1e} of the largest (at most {LIMIT:.0e} passes)"
    )


def fixed_images(size: int) -> np.ndarray:
  """The images that both sides are shown, uint8 [4, size, size, 3].

  They are smooth, as photographs are, and each is of its own brightness.
  """
  rng = np.random.default_rng(0)
  coarse = rng.uniform(0, 255, (_IMAGES, 8, 8, 3)).astype(np.float32)
  row = np.linspace(0, 7, size)
  low = np.minimum(row.astype(int), 6)
  part = (row - low).astype(np.float32)
  weights = np.zeros((size, 8), np.float32)
  weights[np.arange(size), low] = 1 - part
  weights[np.arange(size), low + 1] += part
  smooth = np.einsum("ih,nhwc,jw->nijc", weights, coarse, weights)
  bright = np.linspace(0.4, 1, _IMAGES).reshape(-1, 1, 1, 1)
  return np.clip(smooth * bright, 0, 255).astype(np.uint8)


def our_features(found: Foreign, images: np.ndarray) -> np.ndarray:
  """Features, float32 [B, F], of images, uint8 [B, S, S, 3], by this project.

  Raises:
    WeightsError: weights or features are not finite.
  """
  module = artifact.module_of(found)

  represent = jax.jit(functools.partial(resnet.represent, module))
  # Accelerators would multiply in fewer digits.
  with jax.default_matmul_precision("highest"):
    features = np.asarray(represent(arrays.read(found.encoder), images))
  if not np.isfinite(features).all() or not features.any():
    raise WeightsError(
      "Its encoder gives features that are not finite, or all zero, so its "
      "arrays cannot be what they seem to be."
    )
  return features


def show(
  found: Foreign,
  sides: Mapping[str, Callable[[], tuple[str, Features]]],
  tell: Callable[[str], None],
) -> list[dict[str, Any]]:
  """Compares the features of the fixed images, and tells how far they differ.

  Args:
    found: the weights; its online encoder is compared.
    sides: as of `compare`.
    tell: is given a line for each side.

  Returns:
    The comparisons, for JSON.

  Raises:
    WeightsError: features are not finite, or differ by more than `LIMIT`.
  """
  images = fixed_images(found.image_size)
  compared = compare(our_features(found, images), images, sides)
  for comparison in compared:
    tell(str(comparison))
  return [dataclasses.asdict(comparison) for comparison in compared]


def compare(
  ours: np.ndarray,
  images: np.ndarray,
  sides: Mapping[str, Callable[[], tuple[str, Features]]],
) -> list[Comparison]:
  """Compares features with those of other programs.

  Args:
    ours: float32 [B, F].
    images: uint8 [B, S, S, 3].
    sides: name of the packages that are needed -> () -> the program's name with
      its version, and its function. It raises ImportError if it is not there.

  Raises:
    WeightsError: they differ by more than `LIMIT`.
  """
  found = []
  for packages, load in sides.items():
    try:
      name, function = load()
    except ImportError:
      found.append(Comparison(packages, None))
      continue
    theirs = function(images)
    if theirs.shape != ours.shape:
      raise WeightsError(
        f"{name} gives features {list(theirs.shape)} of {_IMAGES} images; "
        f"expected {list(ours.shape)}. Nothing was written."
      )
    difference = float(np.max(np.abs(theirs - ours)) / np.max(np.abs(ours)))
    if not difference <= LIMIT:  # NaN too
      raise WeightsError(
        f"The features of {_IMAGES} images by {name} differ from ours by "
        f"{difference:.1e} of the largest; expected at most {LIMIT:.0e}. "
        "Nothing was written."
      )
    found.append(Comparison(name, difference))
  return found


def check_equal(
  written: Mapping[str, arrays.Stored], expected: Mapping[str, arrays.Stored]
) -> int:
  """Compares arrays bit for bit, and returns how many there are.

  Raises:
    WeightsError: one is missing, left over, or another.
  """
  if written.keys() != expected.keys():
    name = sorted(written.keys() ^ expected.keys())[0]
    raise WeightsError(
      f"What was written was read again, and {name} is "
      f"{'left over' if name in written else 'missing'}."
    )
  for name, stored in expected.items():
    one, other = written[name].load(), stored.load()
    if one.shape != other.shape or one.tobytes() != other.tobytes():
      raise WeightsError(
        f"What was written was read again, and {name} is not the same."
      )
  return len(expected)
