"""`byol benchmark checkpoint`: what a save costs in time and host memory."""

import functools
import shutil
import tempfile
import time
from typing import Any, TextIO

import jax

from byol_flax import sharding
from byol_flax.benchmarks import memory
from byol_flax.pretrain import build
from byol_flax.runs import checkpoint, data_sets, digest, interrupts
from byol_flax.runs.distributed import Processes
from byol_flax.slices import GIB

_SAVES = 3


def benchmark(config: Any, *, folder: str, stream: TextIO) -> dict[str, Any]:
  """Saves the state of a config a few times, and reads the last one back.

  Args:
    config: as made by configs/byol.py.
    folder: where to save; what is written there is removed again.
    stream: console.

  Returns:
    Seconds to compile the digest's programs, until `save` returns, until the
    checkpoint is committed, and of the restore; bytes of the state, and how
    many bytes the state and what saving adds to it take on the host at most.
  """
  examples, classes = data_sets.size_of(config)
  mesh = sharding.make_mesh()
  built = build.build(config, mesh, num_examples=examples, num_classes=classes)
  state = jax.block_until_ready(built.create_state())
  # A run does this while it trains, long before its first save.
  begun = time.perf_counter()
  digest.compile_ahead(built.abstract_state).join()
  compiling = time.perf_counter() - begun
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  found: dict[str, Any] = {
    "devices": sharding.describe(mesh),
    "state_bytes": size,
    "digest_compiling_seconds": compiling,
    "blocking_seconds": [],
    "committed_seconds": [],
  }
  with (
    tempfile.TemporaryDirectory(dir=folder) as workdir,
    interrupts.when_leaving(functools.partial(shutil.rmtree, workdir)),
  ):
    checkpoints = checkpoint.Checkpoints(
      workdir, processes=Processes(), **config.checkpoint
    )
    memory.settle()
    before = memory.of_process("VmRSS")
    peaks = []
    for label in range(1, _SAVES + 1):
      memory.settle()
      memory.forget_peak()
      begun = time.perf_counter()
      checkpoints.save(label, state, {})
      found["blocking_seconds"].append(time.perf_counter() - begun)
      checkpoints.wait()
      found["committed_seconds"].append(time.perf_counter() - begun)
      peaks.append(memory.of_process("VmHWM"))
    found["peak_bytes"] = max(peaks) - before + size
    found["peak_of_state"] = found["peak_bytes"] / size
    del state
    begun = time.perf_counter()
    restored = checkpoints.restore(built.abstract_state)
    found["restore_seconds"] = time.perf_counter() - begun
    checkpoints.close()
    found["restored"] = restored is not None
  stream.write(
    f"{found['devices']}; a state of {size / GIB:.2f} GiB\n"
    f"the digest's programs compile in {compiling:.1f} s, while a run trains; "
    f"save returns after {_listing(found['blocking_seconds'])} s, is committed "
    f"after {_listing(found['committed_seconds'])} s; restored in "
    f"{found['restore_seconds']:.1f} s\n"
    f"the state and what saving adds to it: {found['peak_of_state']:.2f} times "
    "the state at most\n"
  )
  return found


def _listing(seconds: list[float]) -> str:
  return ", ".join(f"{x:.1f}" for x in seconds)
