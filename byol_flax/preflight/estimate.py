"""Says in words what compiled programs mean for a run: time, money, input."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from byol_flax.preflight.compiler import Compiled
from byol_flax.runs.progress_line import human_duration
from byol_flax.slices import GIB, Slice

# Measured time of published runs of ResNet-50 on TPU v3, divided by the time of
# the cycles that the compiler counts for such a step: tests/published_runs.py.
PUBLISHED = "0.9 to 1.3 times that"


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A run on a slice, at the speed that the compiler thinks possible.

  What is said of a step is said of the program that takes most of the time.

  Attributes:
    images_per_device: of a micro-batch.
    floor_seconds: of a step, if all its operations ran at the device's peak.
    share_of_peak: floor / time by the cost analysis.
    cycle_share_of_peak: floor / time by the cycles.
    images_per_host_second: what each host must read and augment at most, by
      the shorter of the two times.
    input_images_per_host_second: what such a host reads and augments, if its
      cores are as fast as this machine's.
    least_hours: of the whole run, by the shorter of the two times.
    hours: of the whole run, by the longer time.
    device_hours: of all devices together, by the longer time.
    price: of the whole run, None without a price per device and hour.
  """

  images_per_device: float
  floor_seconds: float
  share_of_peak: float
  cycle_share_of_peak: float
  images_per_host_second: float
  input_images_per_host_second: float
  least_hours: float
  hours: float
  device_hours: float
  price: float | None


def longest(programs: Sequence[Compiled]) -> Compiled:
  """The program that takes most of the time of a run."""
  return max(programs, key=lambda one: one.total_steps * max(_times(one)))


def largest(programs: Sequence[Compiled]) -> Compiled:
  """The program that takes most memory; one that does not fit, if any."""
  return max(programs, key=lambda one: (not one.fits, one.peak_bytes))


def _times(compiled: Compiled) -> tuple[float, float]:
  """Seconds of a call, by the cost analysis and by the cycles."""
  return compiled.seconds, compiled.cycle_seconds


def hours_of(programs: Sequence[Compiled]) -> tuple[float, float]:
  """Hours of a run, by the shorter and by the longer of the two times."""
  least = sum(one.total_steps * min(_times(one)) for one in programs)
  most = sum(one.total_steps * max(_times(one)) for one in programs)
  return least / 3600, most / 3600


def estimate(
  programs: Sequence[Compiled],
  slice_: Slice,
  *,
  accumulation_steps: int,
  images_per_core_second: float,
  input_cores: int,
  price_per_device_hour: float | None,
) -> Estimate:
  """Turns the compiler's figures into those of a run; all must fit.

  Args:
    programs: what the compiler said of each; training has only the update.
    slice_: the slice it compiled for.
    accumulation_steps: micro-batches of an update.
    images_per_core_second: images that a core of this machine reads and
      augments in a second.
    input_cores: how many cores of a host do so.
    price_per_device_hour: in any currency; None leaves the cost out.
  """
  compiled = longest(programs)
  least, hours = hours_of(programs)
  device_hours = hours * slice_.devices
  floor = compiled.flops / slice_.peak_flops
  price = price_per_device_hour
  return Estimate(
    images_per_device=compiled.batch_size
    / (slice_.devices * accumulation_steps),
    floor_seconds=floor,
    share_of_peak=floor / compiled.seconds,
    cycle_share_of_peak=floor / compiled.cycle_seconds,
    images_per_host_second=compiled.batch_size
    / (min(_times(compiled)) * slice_.hosts),
    input_images_per_host_second=images_per_core_second * input_cores,
    least_hours=least,
    hours=hours,
    device_hours=device_hours,
    price=None if price is None else device_hours * price,
  )


def amount(number: float) -> str:
  """Hours or money: no decimals from a hundred on, else two digits."""
  return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def memory_words(compiled: Compiled, slice_: Slice) -> str:
  """A verdict such as "fits: 4.7 of 15.5 GiB of a device"."""
  room = slice_.hbm_bytes / GIB
  if compiled.fits:
    return (
      f"fits: {compiled.peak_bytes / GIB:.1f} of {room:.1f} GiB of a device"
    )
  if compiled.peak_bytes:
    need = compiled.peak_bytes / GIB
    return f"does not fit: {need:.1f} GiB where a device has {room:.1f}"
  return f"does not fit into the {room:.1f} GiB of a device"


def words(
  programs: Sequence[Compiled],
  found: Estimate,
  slice_: Slice,
  *,
  input_measured: str,
) -> list[str]:
  """Lines for people; `input_measured` says on which images input ran."""
  main, most = longest(programs), largest(programs)
  each = found.images_per_device
  beside = most.beside_bytes / GIB
  whose = f" ({most.name})" if len(programs) > 1 else ""
  lines = [
    f"{main.parameters:,} parameters; {each:g} images a device at a time",
    f"memory     {memory_words(most, slice_)}{whose}: state and batch "
    f"{most.argument_bytes / GIB:.2f}, all else "
    f"{most.temporary_bytes / GIB:.2f}"
    + (f", beside it {beside:.2f}" if beside else ""),
    f"work       {main.flops / 1e12:.3f} TFLOP and "
    f"{main.bytes_moved / 1e9:.2f} GB moved by each device and {main.name}",
    f"{main.name:<11}{1e3 * main.cycle_seconds:.1f} ms by the compiler's "
    "cycles: not measured, and without communication"
    + (
      f" (published runs took {PUBLISHED})" if slice_.generation == "v3" else ""
    ),
    f"           {1e3 * main.seconds:.1f} ms by its estimate: optimistic, "
    "not measured",
    f"           {1e3 * found.floor_seconds:.1f} ms if all ran at the peak of "
    f"{slice_.peak_flops / 1e12:.0f} TFLOP/s: {found.cycle_share_of_peak:.0%} "
    f"of the cycles, {found.share_of_peak:.0%} of the estimate",
  ]
  if main.augmentation:
    lines.append(
      f"           {1e3 * main.augmentation.cycle_seconds:.1f} ms and "
      f"{main.augmentation.bytes_moved / 1e9:.2f} GB of it for augmentation"
    )
  for kind, traffic in main.collectives.items():
    lines.append(
      f"           {traffic.count} × {kind}, {traffic.size / 1e6:,.1f} MB"
    )
  lines += [_other_words(one) for one in programs if one is not main]
  return [
    *lines,
    *_input_words(found, slice_, input_measured),
    _run_words(programs, found),
  ]


def _other_words(compiled: Compiled) -> str:
  """The line of a program that does not take most of the time."""
  often = f"{1e3 * compiled.cycle_seconds:.1f} ms by the cycles"
  if compiled.total_steps:
    often += f", {compiled.total_steps:,} ×"
  else:
    often = "time unknown"
  return f"{compiled.name:<11}{often}; {compiled.peak_bytes / GIB:.2f} GiB"


def _input_words(
  found: Estimate, slice_: Slice, input_measured: str
) -> list[str]:
  """What each host must read, and can."""
  rate = found.input_images_per_host_second
  enough = rate >= found.images_per_host_second
  return [
    f"input      at most {found.images_per_host_second:,.0f} images/s wanted "
    f"of each of {slice_.hosts} host(s) with {slice_.vcpus_per_host} virtual "
    "CPUs",
    f"           {rate:,.0f} at the rate of this machine's cores "
    f"({input_measured}): {'enough' if enough else 'TOO FEW'}",
  ]


def _run_words(programs: Sequence[Compiled], found: Estimate) -> str:
  """How long all takes, and what it costs."""
  parts = [
    f"{one.total_steps:,} updates of {one.batch_size:,} images"
    if one.name == "update"
    else f"{one.total_steps:,} × {one.name}"
    for one in programs
    if one.total_steps
  ]
  return (
    f"run        {', '.join(parts)}: {human_duration(3600 * found.hours)}, "
    f"{amount(found.device_hours)} device-hours"
    + (
      f", {amount(found.price)} at that price"
      if found.price is not None
      else ""
    )
    + f"; at least {human_duration(3600 * found.least_hours)}"
  )


def record(
  programs: Sequence[Compiled], found: Estimate | None, slice_: Slice
) -> dict[str, Any]:
  """All numbers as a JSON object; seconds, bytes and operations.

  "step" is the program that takes most of the time, or the one that does not
  fit; "others" are the rest of an evaluation's.
  """
  main = longest(programs) if found else largest(programs)
  others = [one for one in programs if one is not main]
  return {
    "slice": dataclasses.asdict(slice_),
    "step": dataclasses.asdict(main),
    "others": [dataclasses.asdict(one) for one in others],
    "run": dataclasses.asdict(found) if found else None,
  }
