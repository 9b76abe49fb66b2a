"""`byol benchmark`: runs a benchmark and writes what it found as JSON."""

import argparse
import os
import sys
from typing import Any

from byol_flax.benchmarks import (
  checkpoint_cost,
  input_evaluation,
  input_table,
  step,
)
from byol_flax.pretrain import places
from byol_flax.pretrain.places import Place
from byol_flax.runs import compilation, devices
from byol_flax.runs.out_files import check_writable, write_json
from byol_flax.runs.version import code_version
from input_pipeline.errors import UsageError


def run(options: argparse.Namespace, config: Any) -> int:
  """Runs one benchmark and writes what it found to `options.out`."""
  compilation.keep_programs(options.compilation_cache)
  what, out, stream = options.what, options.out, sys.stdout
  check_writable(out)
  if what == "checkpoint" and out.startswith("gs://"):
    raise UsageError(
      "benchmark checkpoint saves beside --out, which must be on a disk of "
      f"this machine; {out} is not."
    )
  if options.against_torch and places.place_of(config.augment) != Place.HOST:
    raise UsageError(
      "--against-torch compares updates on finished views: leave "
      "augment.device at host and augment.cache at none."
    )
  measured = None
  if options.against_torch and step.torch_has_a_gpu():
    measured = step.measure_alone(
      config, updates=options.updates, against=step.torch_update
    )
  turns = options.against_torch and not measured
  devices.open_devices(shared=turns)
  if what == "step":
    found = step.benchmark(
      config,
      updates=options.updates,
      stream=stream,
      against=step.torch_update if turns else None,
      measured=measured,
    )
  elif what == "input" and options.evaluation:
    found = input_evaluation.benchmark(config, stream=stream)
  elif what == "input":
    found = input_table.benchmark(
      config,
      against_tf=options.against_tf_data,
      image_size=options.image_size,
      stream=stream,
    )
  else:
    folder = os.path.dirname(os.path.abspath(out))
    found = checkpoint_cost.benchmark(config, folder=folder, stream=stream)
  write_json(out, {"code_version": code_version(), **found})
  stream.write(f"Written to {out}\n")
  return 0
