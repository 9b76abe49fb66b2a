"""The `byol` command.

Exit codes:
  0: the command is done.
  1: the run cannot go on; a sentence says why.
  2: usage, config or data are wrong; a sentence says why.
  3: preflight found that the run does not fit.
  75: the run was preempted, after a save if it was sound; run it again.
  130: the command was interrupted.
Any other code is a fault.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from byol_flax.commands import config_bounds, config_file, libraries, together
from byol_flax.commands.command_line import parse_command
from byol_flax.runs import console, interrupts
from input_pipeline import full_disk
from input_pipeline.errors import (
  DiskFullError,
  PreemptedError,
  RunError,
  UsageError,
)

# Commands that take no config -> their file.
_WITHOUT_CONFIG = {
  "export": "export_weights",
  "features": "features",
  "goodput": "goodput",
  "import": "import_weights",
  "prepare": "prepare",
}
# Commands that keep what they have done and go on from there.
_GO_ON = ("features", "prepare", "reproduce")


def main(argv: Sequence[str]) -> int:
  """Runs one command and returns its exit code; mistakes raise UsageError."""
  options, config_args = parse_command(argv)
  place = options.out if "out" in options else options.workdir
  goes_on = "goes on where it stopped" if options.command in _GO_ON else "works"
  with full_disk.told(place or ".", lambda: f"the same command then {goes_on}"):
    return _run_command(options, config_args)


def _run_command(options: argparse.Namespace, config_args: list[str]) -> int:
  """Hands the parsed options and the config to the verb's file.

  Slow imports happen where they are needed, not at the top of the file: the
  handler of SIGTERM must be there a moment after the start, and --help and
  mistakes must be answered at once.
  """
  status: int
  if file := _WITHOUT_CONFIG.get(options.command):
    status = importlib.import_module(f"byol_flax.commands.{file}").run(options)
    return status
  if options.command == "reproduce":
    from byol_flax.commands import reproduce

    return reproduce.run(options, config_args)
  # Several processes may run these together.
  shared = options.command in ("train", "evaluate")
  if shared:
    sigterms = together.keep_sigterms()
  libraries.settle()
  if getattr(options, "suite", None):
    flag = config_file.of_suite(options.suite, options.encoder)
    config_args.append(flag)
  config = config_file.load_config(config_args)
  evaluates = options.command == "evaluate"
  other = evaluates != config_bounds.evaluates(config)
  if other and options.command != "preflight":
    raise UsageError(
      "A config that names a protocol, such as configs/few_label.py, belongs "
      "to `byol evaluate` and `byol preflight`, and every other config to the "
      "other commands and `byol preflight`; "
      f"`byol {options.command}` got the other kind."
    )
  if "suite" in config and not (evaluates and options.encoder):
    raise UsageError(
      "A suite is for `byol evaluate` with --encoder=RUN and a --workdir of "
      "its own; other commands take one of its parts, such as "
      "--config=configs/linear.py."
    )
  verb = importlib.import_module(f"byol_flax.commands.{options.command}")
  given = (options, config, sigterms) if shared else (options, config)
  status = verb.run(*given)
  return status


def run() -> None:
  """Entry point of the console script."""
  console.protect()
  interrupts.listen(f"interrupted{_way_on('goes on')}.")
  try:
    status = main(sys.argv[1:])
  except (UsageError, RunError) as error:
    sys.stderr.write(f"byol: {error}\n")
    if isinstance(error, DiskFullError):
      # In an orderly end, threads would go on trying to write.
      sys.stderr.flush()
      os._exit(1)
    status = 2 if isinstance(error, UsageError) else 1
  except PreemptedError:
    if interrupts.handed_on():
      saved = ", and saved" if interrupts.saved() else ""
      sys.stderr.write(f"byol: interrupted{saved}{_way_on('goes on')}.\n")
      status = interrupts.EXIT_CODE
    else:
      sys.stderr.write(f"byol: preempted{_way_on('resumes')}.\n")
      status = 75  # EX_TEMPFAIL
  interrupts.end(status)


def _way_on(verb: str) -> str:
  """Says how to take up a command that was cut off; true at any moment."""
  command = sys.argv[1] if sys.argv[1:] else ""
  if command in _GO_ON:
    return "; the same command goes on where it stopped"
  if command == "evaluate":
    return "; the same command takes it up again"
  if command != "train":
    return ""
  way = f"the same command {verb} from the last checkpoint, if there is one"
  if "--restart" in sys.argv:
    return f"; without --restart {way}; with it the run begins anew"
  return f"; {way}"


if __name__ == "__main__":
  run()
