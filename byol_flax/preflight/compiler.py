"""Compiles the programs of a run for a slice that is not there.

XLA's TPU compiler (libtpu) needs no TPU. It gives two figures of time. Neither
is measured, and both leave out input, dispatch and communication. Its cost
analysis is optimistic: it sums what each operation would take at best; on v4
and v5 it counts traffic within the chip too. The cycles that it writes beside
each operation of the compiled program come closer. BUILD_NOTES.md compares both
with published runs (Results, Preflight).
"""

import contextlib
import dataclasses
import importlib.util
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from byol_flax import sharding, trees
from byol_flax.preflight import hlo
from byol_flax.pretrain import build
from byol_flax.slices import Slice
from input_pipeline.errors import RunError, UsageError

# XLA's cost analysis counts an operation that it does not know as -1 second.
# It does not know these, which take about no time: the first is of v4 and v5e,
# and the second cuts a few truth values that devices send to each other.
_UNKNOWN_COST = re.compile(r'custom_call_target="(ConcatBitcast|ZeroCrop)"')


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a program takes on one device, by the compiler.

  Attributes:
    flops: floating-point operations.
    bytes_moved: to and from the device's memory.
    seconds: by the cost analysis.
    cycle_seconds: by the cycles of all operations.
  """

  flops: float = 0.0
  bytes_moved: float = 0.0
  seconds: float = 0.0
  cycle_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What the compiler says about one device's part of a program.

  Attributes:
    name: of the program: "update" for the training step.
    fits: whether it fits into the device's memory.
    parameters: of the online network, or of the encoder that is evaluated.
    peak_bytes: memory in use at most. If the program does not fit, what it
      would take, or 0 if the compiler does not tell.
    argument_bytes: what the program is given: state and batch.
    beside_bytes: what else lies on the device meanwhile.
    temporary_bytes: all else.
    flops: floating-point operations.
    bytes_moved: to and from the device's memory.
    seconds: by the cost analysis.
    cycle_seconds: by the cycles of all operations.
    augmentation: the share of these four that making the views takes; None if
      the host makes them.
    collectives: kind -> count and bytes.
    compile_seconds: how long this machine compiled.
    batch_size: global.
    total_steps: how often the run calls the program.
  """

  name: str
  fits: bool
  parameters: int
  peak_bytes: int
  argument_bytes: int
  beside_bytes: int
  temporary_bytes: int
  flops: float
  bytes_moved: float
  seconds: float
  cycle_seconds: float
  augmentation: Cost | None
  collectives: dict[str, hlo.Traffic]
  compile_seconds: float
  batch_size: int
  total_steps: int


def check_installed() -> None:
  """Raises UsageError unless the TPU compiler is there."""
  if importlib.util.find_spec("libtpu") is None:
    raise UsageError(
      "Preflight needs XLA's TPU compiler, which is not installed (Linux on "
      "x86-64 only): .venv/bin/python -m pip install --constraint "
      "constraints.txt --editable '.[preflight]'"
    )


def devices_of(slice_: Slice) -> list[Any]:
  """The devices of a slice, as the compiler knows them."""
  from jax.experimental import topologies

  found = topologies.get_topology_desc(
    platform="tpu", **slice_.compiler_options
  )
  return list(found.devices)


@contextlib.contextmanager
def _nothing_kept() -> Iterator[None]:
  """Compiles without JAX's cache, which may be on for other programs.

  A program for devices that are absent cannot be read back from it.
  """
  before = jax.config.values["jax_enable_compilation_cache"]
  jax.config.update("jax_enable_compilation_cache", False)
  # JAX looks at the option once, and again after this.
  compilation_cache.reset_cache()
  try:
    yield
  finally:
    jax.config.update("jax_enable_compilation_cache", before)
    compilation_cache.reset_cache()


def compile_step(
  config: Any,
  slice_: Slice,
  *,
  num_examples: int,
  num_classes: int,
  tell: Callable[[str], None],
  resident: tuple[int, ...] | None = None,
  blocks: tuple[int, ...] | None = None,
) -> Compiled:
  """Compiles the step that `byol train` would run on `slice_`.

  Args:
    config: as made by configs/byol.py.
    slice_: where it would run.
    num_examples: of the training split.
    num_classes: of the online classifier.
    tell: is given the name of each phase as it begins.
    resident: shape of the images that lie on the devices, if they do.
    blocks: numbers of blocks in the groups of the encoder, instead of its
      architecture's own.

  Raises:
    UsageError: the config does not suit the slice.
  """
  mesh = sharding.make_mesh(devices_of(slice_))
  built = build.build(
    config,
    mesh,
    num_examples=num_examples,
    num_classes=num_classes,
    resident=resident,
    blocks=blocks,
  )
  step = compile_program(
    lambda: built.step_fn.lower(built.abstract_state, built.abstract_batch),
    slice_,
    loops=config.accumulation_steps,
    tell=tell,
    name="update",
    parameters=trees.count(built.abstract_state.online.params),
    batch_size=built.abstract_batch["label"].shape[0],
    beside_bytes=0,
    total_steps=built.total_steps,
  )
  if not step.fits or "draw" not in built.abstract_batch:
    return step
  begun = time.monotonic()
  tell("compiling the augmentation")
  views = jax.jit(built.make_views, out_shardings=sharding.split(mesh))
  with _nothing_kept():
    cost = cost_of(views.lower(built.abstract_batch).compile(), slice_)
  seconds = step.compile_seconds + time.monotonic() - begun
  return dataclasses.replace(step, augmentation=cost, compile_seconds=seconds)


def compile_program(
  lower: Callable[[], Any],
  slice_: Slice,
  *,
  loops: int,
  tell: Callable[[str], None],
  beside_bytes: int,
  **known: Any,
) -> Compiled:
  """Compiles one program.

  Args:
    lower: traces a jitted function and lowers it for devices of `slice_`.
    slice_: where it would run.
    loops: as in `hlo.cycles`.
    tell: is given the name of each phase as it begins.
    beside_bytes: as in `Compiled`, like the rest.
    **known: what is known without compiling.

  Raises:
    RunError: the compiler failed, but not for want of memory.
  """
  begun = time.monotonic()
  tell("tracing")
  lowered = lower()
  tell("compiling")
  try:
    with _nothing_kept():
      compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    # Its beginning differs between versions of libtpu.
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise RunError(
        f"The TPU compiler failed: {str(error).splitlines()[0][:300]}"
      ) from error
    needed = needed_bytes(str(error))
    return Compiled(
      fits=False,
      peak_bytes=needed and needed + beside_bytes,
      argument_bytes=0,
      temporary_bytes=0,
      **dataclasses.asdict(Cost()),
      augmentation=None,
      collectives={},
      compile_seconds=time.monotonic() - begun,
      beside_bytes=beside_bytes,
      **known,
    )
  memory = compiled.memory_analysis()
  peak = memory.peak_memory_in_bytes + beside_bytes
  return Compiled(
    fits=peak <= slice_.hbm_bytes,
    peak_bytes=peak,
    argument_bytes=memory.argument_size_in_bytes,
    temporary_bytes=memory.temp_size_in_bytes,
    **dataclasses.asdict(cost_of(compiled, slice_, loops=loops)),
    augmentation=None,
    collectives=hlo.collectives(compiled.as_text(), loops=loops),
    compile_seconds=time.monotonic() - begun,
    beside_bytes=beside_bytes,
    **known,
  )


def cost_of(compiled: Any, slice_: Slice, *, loops: int = 1) -> Cost:
  """Reads what the compiler says about a program compiled for `slice_`.

  Its cost analysis counts a loop as if it ran once. Our loop runs `loops`
  times, so the sums are scaled by what that does to the cycles. Time alone is
  scaled for other loops, such as that of a detector over its proposals, which
  do little but wait.

  Raises:
    RunError: its figures are absent or impossible.
  """
  cost, text = compiled.cost_analysis(), compiled.as_text()
  seconds = cost["optimal_seconds"] + len(_UNKNOWN_COST.findall(text))
  if seconds <= 0:
    raise RunError(
      f"The TPU compiler estimates {seconds:g} s for an update on "
      f"{slice_.name}, which is impossible; preflight cannot judge this slice."
    )
  once = hlo.cycles(text, scans=False)
  if not once:
    raise RunError(
      "This TPU compiler writes no cycles into its program, unlike libtpu "
      "0.0.42; install the version that constraints.txt names."
    )
  cycles = hlo.cycles(text, loops)
  scale = hlo.cycles(text, loops, scans=False) / once
  return Cost(
    flops=scale * cost["flops"],
    bytes_moved=scale * cost["bytes accessed"],
    seconds=cycles / once * seconds,
    cycle_seconds=cycles / slice_.clock_hz,
  )


def needed_bytes(message: str) -> int:
  """How much a compiler's refusal says is needed; 0 if it does not say.

  It says "Used 20.31G of 15.48G hbm", or, where not even the temporaries fit,
  "temporaries (20.54G) exceeds available HBM (15.48G)".
  """
  found = re.search(
    r"[Uu]sed ([\d.]+)([KMGT]) of|\(([\d.]+)([KMGT])\) exceeds", message
  )
  if not found:
    return 0
  number, unit = found[1] or found[3], found[2] or found[4]
  return int(float(number) * 2 ** (10 * (1 + "KMGT".index(unit))))
