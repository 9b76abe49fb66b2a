"""`byol benchmark`: measures, tells, and writes JSON."""

import os
from typing import Any, TextIO

from byol_flax.benchmarks import (
  checkpoint_cost,
  input_evaluation,
  input_table,
  step,
)
from byol_flax.runs.out_files import check_writable, write_json
from byol_flax.runs.version import code_version
from input_pipeline.errors import UsageError


def benchmark(
  what: str,
  config: Any,
  *,
  updates: int,
  against_torch: bool,
  against_tf: bool,
  evaluation: bool,
  image_size: str | None,
  out: str,
  stream: TextIO,
) -> None:
  """Runs one benchmark.

  Args:
    what: "step", "input" or "checkpoint".
    config: as made by configs/byol.py.
    updates: timed updates of "step".
    against_torch: time PyTorch as well, for "step".
    against_tf: time tf.data as well, for "input".
    evaluation: time the input of evaluations, for "input".
    image_size: of synthetic photographs, for "input"; None: the config's own.
    out: JSON file to write.
    stream: console.

  Raises:
    UsageError: for all that a user can mend.
  """
  check_writable(out)
  if what == "checkpoint" and out.startswith("gs://"):
    raise UsageError(
      "benchmark checkpoint saves beside --out, on a disk of this machine; "
      f"{out} is not on one."
    )
  if against_torch and (config.augment.device, config.augment.cache) != (
    "host",
    "none",
  ):
    raise UsageError(
      "--against-torch compares updates on finished views: leave "
      "augment.device at host and augment.cache at none."
    )
  if what == "step":
    found = step.benchmark(
      config,
      updates=updates,
      stream=stream,
      against=step.torch_update if against_torch else None,
    )
  elif what == "input" and evaluation:
    found = input_evaluation.benchmark(config, stream=stream)
  elif what == "input":
    found = input_table.benchmark(
      config, against_tf=against_tf, image_size=image_size, stream=stream
    )
  else:
    folder = os.path.dirname(os.path.abspath(out))
    found = checkpoint_cost.benchmark(config, folder=folder, stream=stream)
  write_json(out, {"code_version": code_version(), **found})
  stream.write(f"Written to {out}\n")
