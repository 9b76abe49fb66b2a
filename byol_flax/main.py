"""The `byol` command.

Exit codes: 0 done; 75 preempted after a save, run it again; 2 wrong usage,
config or data and 1 a run that cannot go on, both told in a sentence; 3 a
preflight that does not fit; 130 interrupted; any other a fault.
"""

import argparse
import glob
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from byol_flax.commands import config_bounds
from byol_flax.commands.command_line import parse_command
from byol_flax.commands.config_file import config_of_run, load_config
from byol_flax.runs import console, interrupts
from input_pipeline import full_disk
from input_pipeline.errors import (
  DiskFullError,
  PreemptedError,
  RunError,
  UsageError,
)

# What takes time to import is imported where it is used: SIGTERM must meet a
# handler within a moment of the start, and --help and mistakes an answer.
if TYPE_CHECKING:
  from ml_collections import ConfigDict


def main(argv: Sequence[str]) -> int:
  """Runs one command, returns the exit code; mistakes leave as UsageError."""
  options, config_args = parse_command(argv)
  place = options.out if "out" in options else options.workdir
  goes_on = (
    "goes on where it stopped" if options.command == "prepare" else "works"
  )
  with full_disk.told(place, lambda: f"the same command then {goes_on}"):
    return _run_command(options, config_args)


def _run_command(options: argparse.Namespace, config_args: list[str]) -> int:
  """`main` of a command that was understood."""
  sigterms: list[int] = []
  if options.command == "train":
    # Until JAX puts its own handler in this place, within a few seconds. A
    # signal in between is kept for it; see `distributed.start`.
    signal.signal(signal.SIGTERM, lambda number, _: sigterms.append(number))
    interrupts.terminate_on_hangup()
  if options.command == "prepare":
    _prepare(options)
    return 0
  _hush_libtpu()
  from absl import flags, logging

  config = load_config(config_args)
  evaluates = options.command == "evaluate"
  if evaluates != config_bounds.evaluates(config):
    raise UsageError(
      "configs/evaluate.py belongs to `byol evaluate`, and every other config "
      f"to the other commands; `byol {options.command}` got the other kind."
    )
  # Orbax and Grain log every save and every start; ours is the progress line.
  logging.set_verbosity(logging.ERROR)
  full_disk.hush()
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  flags.FLAGS.mark_as_parsed()  # Grain reads absl flags when workers start.
  if "compilation_cache" in options:
    from byol_flax.runs import compilation

    compilation.keep_programs(options.compilation_cache)

  if options.command in ("evaluate", "benchmark"):
    from byol_flax.runs import devices

    devices.open_devices(
      shared="against_torch" in options and options.against_torch
    )

  if options.command == "train":
    _train(options, config, sigterms)
  elif options.command == "evaluate":
    from byol_flax.commands import evaluate

    record = evaluate.read_run(options.workdir)
    evaluate.evaluate(
      config,
      config_of_run(record),
      record,
      options.workdir,
      stream=sys.stdout,
    )
  elif options.command == "views":
    from byol_flax.commands import views

    views.draw(config, options.out, options.count, stream=sys.stdout)
  elif options.command == "preflight":
    return _preflight(options, config)
  elif options.command == "benchmark":
    from byol_flax.commands import benchmark

    benchmark.benchmark(
      options.what,
      config,
      updates=options.updates,
      against_torch=options.against_torch,
      against_tf=options.against_tf_data,
      evaluation=options.evaluation,
      image_size=options.image_size,
      out=options.out,
      stream=sys.stdout,
    )
  return 0


def _prepare(options: argparse.Namespace) -> None:
  from byol_flax.commands import prepare

  prepare.prepare(
    options.source,
    options.out,
    name=options.name,
    version=options.version,
    split=options.split,
    labels=options.labels,
    keep_duplicates=options.keep_duplicates,
    longest_side=options.longest_side,
    against=options.against,
    num_workers=options.workers,
    stream=sys.stdout,
  )


def _hush_libtpu() -> None:
  """Keeps the TPU compiler, if installed, from searching for an absent TPU."""
  if not (glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")):
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v3-8")


def _preflight(options: argparse.Namespace, config: "ConfigDict") -> int:
  """Compiles for TPUs on a machine that has none, or leaves its own alone."""
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # no metadata server to ask
  os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # two preflights at once
  os.environ["TPU_LOG_DIR"] = "disabled"
  from byol_flax.commands import preflight

  return preflight.preflight(
    config,
    options.slice,
    price=options.price,
    fast=options.fast,
    out=options.out,
    stream=sys.stdout,
  )


def _train(
  options: argparse.Namespace, config: "ConfigDict", sigterms: list[int]
) -> None:
  """Gathers the processes of the run and trains."""
  from byol_flax.runs import distributed
  from byol_flax.runs.peers import watch

  cluster = distributed.find_cluster(
    options.coordinator, options.process_count, options.process_index
  )
  deadlines = watch.Deadlines(**config.deadlines)
  workdir = options.workdir
  identity = " ".join(
    str(said)
    for said in (
      config.to_json(),
      workdir,
      options.restart,
      options.init,
      options.init_encoder,
    )
  )
  # One voice: of several processes the first one tells how it goes.
  with (
    open(os.devnull, "w") as nowhere,
    distributed.start(
      cluster, deadlines, identity=identity, sigterms=sigterms
    ) as processes,
  ):
    # Imported within, so that a signal meets JAX's handler at once.
    from byol_flax.runs import devices

    devices.open_devices()
    from byol_flax.evaluation import online
    from byol_flax.pretrain import origin, train
    from byol_flax.runs import workdir as workdir_lib

    begins_with = None
    for text, encoder_only in (
      (options.init, False),
      (options.init_encoder, True),
    ):
      if text is not None:
        begins_with = origin.parse(text, encoder_only)
    with (
      full_disk.told(
        workdir, lambda: workdir_lib.way_on(workdir, options.restart)
      ),
      workdir_lib.taken(workdir),
    ):
      train.train(
        config,
        workdir,
        restart=options.restart,
        begins_with=begins_with,
        open_evaluation=online.open_evaluation,
        processes=processes,
        stream=nowhere if cluster.index else sys.stderr,
      )


def run() -> None:
  """Entry point of the console script."""
  console.protect()
  interrupts.listen(f"interrupted{_way_on('goes on')}.")
  try:
    status = main(sys.argv[1:])
  except (UsageError, RunError) as error:
    sys.stderr.write(f"byol: {error}\n")
    if isinstance(error, DiskFullError):
      # Threads that were writing would go on while the interpreter ends.
      sys.stderr.flush()
      os._exit(1)
    status = 2 if isinstance(error, UsageError) else 1
  except PreemptedError:
    if interrupts.handed_on():
      sys.stderr.write(f"byol: interrupted, and saved{_way_on('goes on')}.\n")
      status = interrupts.EXIT_CODE
    else:
      sys.stderr.write(f"byol: preempted{_way_on('resumes')}.\n")
      status = 75  # EX_TEMPFAIL
  interrupts.end(status)


def _way_on(verb: str) -> str:
  """How a command that was cut off is taken up again; true at any moment."""
  command = sys.argv[1] if sys.argv[1:] else ""
  if command == "prepare":
    return "; the same command goes on where it stopped"
  if command != "train":
    return ""
  way = f"the same command {verb} from the last checkpoint, if there is one"
  if "--restart" in sys.argv:
    return f"; without --restart {way}; with it the run begins anew"
  return f"; {way}"


if __name__ == "__main__":
  run()
