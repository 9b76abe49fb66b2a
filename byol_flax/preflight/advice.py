"""What to change when a step does not fit, or when a smaller slice would do."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from byol_flax import slices
from byol_flax.preflight.compiler import Compiled
from byol_flax.slices import Slice

# The compiler's own figure must stay below this share of the memory before a
# smaller slice, which is not compiled, is recommended.
_SAFE = 0.9


@dataclasses.dataclass(frozen=True)
class Change:
  """A setting that may fit.

  Attributes:
    config: with the setting.
    flags: that make it, for the command line.
    factor: by how much the images that a device holds at a time are fewer.
  """

  config: Any
  flags: str
  factor: int


def changes(config: Any, devices: int) -> list[Change]:
  """Settings that take less memory, smallest change first.

  Recomputation comes first, because it changes no number. Micro-batches do:
  each has its own BatchNorm statistics.
  """
  images = config.batch_size // config.accumulation_steps
  found = []
  for factor in _powers_of_two(images // devices):
    if images // factor < 2:  # which BatchNorm needs
      break
    changed = copy.deepcopy(config)
    changed.model.encoder.recompute = True
    changed.accumulation_steps = config.accumulation_steps * factor
    flags = []
    if not config.model.encoder.recompute:
      flags.append("--config.model.encoder.recompute=true")
    if factor > 1:
      flags.append(f"--config.accumulation_steps={changed.accumulation_steps}")
    if flags:
      found.append(Change(changed, " ".join(flags), factor))
  return found


def _powers_of_two(most: int) -> Iterator[int]:
  factor = 1
  while factor <= most and most % factor == 0:
    yield factor
    factor *= 2


def smallest_that_fits(
  candidates: list[Change],
  compiled: Callable[[Change], Compiled],
  slice_: Slice,
) -> tuple[Change, Compiled] | None:
  """The first candidate that fits, found with few compilations.

  What does not fit tells what else cannot: with a half of the images at a time
  it would still take half as much at the least.

  Args:
    candidates: in order; later ones take less memory.
    compiled: compiles a candidate.
    slice_: the memory.

  Returns:
    None when none fits.
  """
  first, end = 0, len(candidates)  # those that may be the answer
  tried = 0
  answer = None
  while first < end:
    change = candidates[tried]
    result = compiled(change)
    if result.fits:
      answer = change, result
      end = tried
      tried = end - 1
      continue
    first = tried + 1
    while (
      first < end
      and result.peak_bytes * change.factor / candidates[first].factor
      > slice_.hbm_bytes
    ):
      first += 1
    tried = first
  return answer


def smaller_slice(
  compiled: Compiled,
  slice_: Slice,
  *,
  batch_size: int,
  accumulation_steps: int,
) -> tuple[Slice, float] | None:
  """The smallest slice that would do, and how many times longer it takes.

  A prediction, not compiled: as if all memory grew with the images of a device.
  """
  best = None
  for other in slices.smaller(slice_):
    times = slice_.devices / other.devices
    fits = compiled.peak_bytes * times < _SAFE * other.hbm_bytes
    divides = batch_size % (other.devices * accumulation_steps) == 0
    if fits and divides:
      best = other, times
  return best
