"""Cloud TPU slices by name: devices, memory, peak, hosts.

A slice is named as gcloud names it: v3-32 has 32 cores, v4-32 and v5p-32 have
32 cores on 16 chips, v5litepod-16 and v6e-16 have 16 chips.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any

from input_pipeline.errors import UsageError

GIB = 2**30

_FLAT = {  # chips -> topology of the generations with a two-dimensional torus
  1: "1x1",
  4: "2x2",
  8: "2x4",
  16: "4x4",
  32: "4x8",
  64: "8x8",
  128: "8x16",
  256: "16x16",
}
_SOLID = {
  4: "2x2x1",
  8: "2x2x2",
  16: "2x2x4",
  32: "2x4x4",
  64: "4x4x4",
  128: "4x4x8",
  256: "4x8x8",
  512: "8x8x8",
  1024: "8x8x16",
}


@dataclasses.dataclass(frozen=True)
class Generation:
  """What the slices of one kind of TPU have in common.

  Attributes:
    prefix: of the names of its slices.
    counted_per_chip: how much each chip adds to the number in a name.
    devices_per_chip: as JAX shows them.
    hbm_gib: memory of a device that programs may use.
    peak_tflops: of a device, bfloat16.
    clock_ghz: of its cores.
    vcpus_per_host: of the virtual machine that holds four chips.
    shapes: chips -> topology.
  """

  prefix: str
  counted_per_chip: int
  devices_per_chip: int
  hbm_gib: float
  peak_tflops: float
  clock_ghz: float
  vcpus_per_host: int
  shapes: Mapping[int, str]


# hbm_gib and, for v2 and v3, peak_tflops are what XLA's TPU compiler (libtpu
# 0.0.42) itself counts with. The other peaks, and the virtual CPUs of v5e, come
# from Google's pages on each generation (cloud.google.com/tpu/docs/v4 and so
# on). The virtual CPUs of v4, v5p and v6e could not be looked up again and may
# be off. clock_ghz is the peak divided by what the matrix units do in a cycle
# (2 · 128² each). The clock of v6e is not public, so that of v5p stands in for
# it. By these clocks the cycles that the compiler counts for one product of
# large matrices amount to 70 to 99 % of the peak.
GENERATIONS = {
  "v2": Generation(
    "v2-",
    2,
    2,
    7.48,
    22.8,
    0.70,
    96,
    {n: _FLAT[n] for n in (4, 16, 64, 128, 256)},
  ),
  "v3": Generation(
    "v3-",
    2,
    2,
    15.48,
    61.4,
    0.94,
    96,
    {n: _FLAT[n] for n in (4, 16, 32, 64, 128, 256)}
    | {512: "16x32", 1024: "32x32"},
  ),
  "v4": Generation(
    "v4-", 2, 1, 30.75, 275.0, 1.05, 240, _SOLID | {2048: "8x16x16"}
  ),
  "v5e": Generation("v5litepod-", 1, 1, 15.75, 197.0, 1.50, 112, _FLAT),
  "v5p": Generation("v5p-", 2, 1, 95.73, 459.0, 1.75, 208, _SOLID),
  "v6e": Generation("v6e-", 1, 1, 31.24, 918.0, 1.75, 180, _FLAT),
}
_CHIPS_PER_HOST = 4
# (generation, chips) of the machines that hold one chip or eight.
_VCPUS_OF_OTHER_HOSTS = {("v5e", 1): 24, ("v5e", 8): 224, ("v6e", 1): 45}


@dataclasses.dataclass(frozen=True)
class Slice:
  """One size of slice.

  Attributes:
    name: as gcloud takes it.
    generation: key of `GENERATIONS`.
    chips: of the slice.
    devices: as JAX shows them.
    hosts: machines that feed them.
    vcpus_per_host: virtual CPUs of each.
    hbm_bytes: memory of a device that programs may use.
    peak_flops: of a device, bfloat16 operations per second.
    clock_hz: of its cores, cycles per second.
    topology: how the chips lie, such as "4x4".
  """

  name: str
  generation: str
  chips: int
  devices: int
  hosts: int
  vcpus_per_host: int
  hbm_bytes: int
  peak_flops: float
  clock_hz: float
  topology: str

  @property
  def compiler_options(self) -> dict[str, Any]:
    """Arguments of `jax.experimental.topologies.get_topology_desc`."""
    options: dict[str, Any] = {
      "topology_name": f"{self.generation}:{self.topology}"
    }
    if self.generation == "v4":
      # Without these a chip shows as two devices with half its memory each.
      sides = [int(side) for side in self.topology.split("x")]
      options["chip_config_name"] = "megacore"
      options["chips_per_host_bounds"] = (2, 2, 1)
      options["wrap"] = (min(sides) >= 4,) * 3
    elif self.hosts == 1:
      bounds: tuple[int, ...] = (*map(int, self.topology.split("x")), 1)
      options["chips_per_host_bounds"] = bounds[:3]
    return options


def _make(generation: str, chips: int) -> Slice:
  kind = GENERATIONS[generation]
  # Eight chips of v5e or v6e share one machine.
  whole = chips == 8 and generation in ("v5e", "v6e")
  hosts = 1 if whole else math.ceil(chips / _CHIPS_PER_HOST)
  vcpus = _VCPUS_OF_OTHER_HOSTS.get((generation, chips), kind.vcpus_per_host)
  return Slice(
    name=f"{kind.prefix}{chips * kind.counted_per_chip}",
    generation=generation,
    chips=chips,
    devices=chips * kind.devices_per_chip,
    hosts=hosts,
    vcpus_per_host=vcpus,
    hbm_bytes=int(kind.hbm_gib * GIB),
    peak_flops=kind.peak_tflops * 1e12,
    clock_hz=kind.clock_ghz * 1e9,
    topology=kind.shapes[chips],
  )


SLICES = {
  made.name: made
  for generation, kind in GENERATIONS.items()
  for made in (_make(generation, chips) for chips in kind.shapes)
}


def find(name: str) -> Slice:
  """Finds a slice by its name; "v5e-16" is taken for "v5litepod-16".

  Raises:
    UsageError: there is no such slice.
  """
  wanted = name.lower().replace("v5e-", "v5litepod-")
  if wanted in SLICES:
    return SLICES[wanted]
  prefix = wanted.partition("-")[0] + "-"
  family = [known for known in SLICES if known.startswith(prefix)]
  near = difflib.get_close_matches(wanted, family or SLICES, n=1)
  hint = f" Did you mean {near[0]}?" if near else ""
  raise UsageError(
    f"There is no slice {name!r}; known are {', '.join(family or SLICES)}."
    f"{hint}"
  )


def smaller(slice_: Slice) -> list[Slice]:
  """The slices of the same generation with fewer chips, largest first."""
  return [x for x in reversed(_family(slice_)) if x.chips < slice_.chips]


def larger(slice_: Slice) -> list[Slice]:
  """The slices of the same generation with more chips, smallest first."""
  return [x for x in _family(slice_) if x.chips > slice_.chips]


def _family(slice_: Slice) -> list[Slice]:
  same = [x for x in SLICES.values() if x.generation == slice_.generation]
  return sorted(same, key=lambda x: x.chips)
