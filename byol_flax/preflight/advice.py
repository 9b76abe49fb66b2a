"""What to change when a run does not fit, or when a smaller slice would do."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from byol_flax import slices
from byol_flax.preflight.compiler import Compiled
from byol_flax.slices import Slice

# A smaller slice is recommended without compiling for it, so the predicted
# memory must stay below this share of what it has.
_SAFE = 0.9


@dataclasses.dataclass(frozen=True)
class Change:
  """A changed config that may fit.

  Attributes:
    config: with the change.
    flags: that make the change on the command line.
    factor: how many times fewer images a device holds at a time.
    effect: what it does to results, in words; "" if nothing.
  """

  config: Any
  flags: str
  factor: int
  effect: str = ""


def changes(config: Any, devices: int) -> list[Change]:
  """Changes that take less memory, the smallest first.

  Recomputation comes first, because it changes no result. Micro-batches change
  results, because each has its own BatchNorm statistics.
  """
  images = config.batch_size // config.accumulation_steps
  found = []
  for factor in _powers_of_two(images // devices):
    if images // factor < 2:  # BatchNorm needs two
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
      effect = _of_micro_batches(config) if factor > 1 else ""
      found.append(Change(changed, " ".join(flags), factor, effect))
  return found


def _of_micro_batches(config: Any) -> str:
  """What smaller micro-batches of a run do to its results."""
  negatives = " and negatives" if config.objective.negatives_weight else ""
  return f"each micro-batch has BatchNorm statistics{negatives} of its own"


def smaller_batches(config: Any, devices: int) -> list[Change]:
  """Smaller batches of an evaluation, the largest first; no result changes.

  They stay such that the devices share them.
  """
  found = []
  for factor in _powers_of_two(config.batch_size // devices):
    if factor > 1:
      changed = copy.deepcopy(config)
      changed.batch_size = config.batch_size // factor
      flags = f"--config.batch_size={changed.batch_size}"
      found.append(Change(changed, flags, factor))
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

  A candidate that does not fit rules out others: with half as many images at a
  time, a step still takes at least half the memory.

  Args:
    candidates: in order; later ones take less memory.
    compiled: compiles a candidate.
    slice_: whose devices have the memory.

  Returns:
    None when none fits.
  """
  first, end = 0, len(candidates)  # the answer lies in [first, end)
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
  compiled: Compiled, slice_: Slice, *, micro_batch: int
) -> tuple[Slice, float] | None:
  """The smallest slice that would do, and how many times longer it takes.

  This is a prediction: nothing is compiled, and all memory is taken to grow
  with the number of images on a device, of which there are `micro_batch` on all
  together.
  """
  best = None
  for other in slices.smaller(slice_):
    times = slice_.devices / other.devices
    fits = compiled.peak_bytes * times < _SAFE * other.hbm_bytes
    divides = micro_batch % other.devices == 0
    if fits and divides:
      best = other, times
  return best


def larger_slice(compiled: Compiled, slice_: Slice) -> Slice | None:
  """The smallest slice that may do where `slice_` does not.

  This is a prediction, like `smaller_slice`.
  """
  for other in slices.larger(slice_):
    times = other.devices / slice_.devices
    if compiled.peak_bytes / times < _SAFE * other.hbm_bytes:
      return other
  return None
