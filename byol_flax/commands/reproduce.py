"""`byol reproduce`: runs a table of ablations as one sweep, and reports."""

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from byol_flax import bounds
from byol_flax.commands import config_file, libraries, together
from byol_flax.commands.command_line import SHIPPED_CONFIGS
from byol_flax.commands.protocol_bounds import SEED
from input_pipeline.errors import UsageError

if TYPE_CHECKING:
  from byol_flax.reproduce.plan import Plan

# JAX is imported within the functions, so that SIGTERM has a handler before.


def run(options: argparse.Namespace, changes: list[str]) -> int:
  """Runs a table's rows, or tells what they would cost.

  Args:
    options: of the command.
    changes: flags --config.key=value, for all rows.
  """
  if any(flag.startswith("--config=") for flag in changes):
    raise UsageError(
      "`byol reproduce` takes the configs of the table's rows, so it has no "
      "--config=FILE; --config.key=value changes a value in all rows."
    )
  if options.dry_run:
    return _tell_cost(options, changes)
  if options.slice or options.price is not None:
    raise UsageError(
      "--slice and --price tell what runs would cost; add --dry-run, or leave "
      "them out."
    )
  if options.workdir is None:
    raise UsageError(
      "`byol reproduce` needs --workdir=DIR for its runs; only --dry-run does "
      "without."
    )
  sigterms = together.keep_sigterms()
  libraries.settle()
  planned = _plan(options, changes)
  with (
    open(os.devnull, "w") as nowhere,
    together.started(options, planned.baseline, sigterms) as (processes, index),
  ):
    from byol_flax import sharding
    from byol_flax.reproduce import sweep

    machine = sweep.Machine(
      mesh=sharding.make_mesh(),
      processes=processes,
      out=nowhere if index else sys.stdout,
      console=nowhere if index else sys.stderr,
      nowhere=nowhere,
    )
    sweep.run(planned, options.workdir, machine)
  return 0


def _tell_cost(options: argparse.Namespace, changes: list[str]) -> int:
  """Prints what every row would take on a slice."""
  libraries.settle()
  libraries.compile_for_tpus()
  # JAX reads the environment when it is imported, so it is imported only now.
  from byol_flax import slices
  from byol_flax.preflight import compiler, pretraining
  from byol_flax.reproduce import cost

  planned = _plan(options, changes)
  name = options.slice
  if name is None and options.scale == "imagenet":
    name = cost.SLICE_OF_THE_PAPER
  if name is None:
    cost.list_rows(planned, sys.stdout)
    return 0
  slice_ = slices.find(name)
  compiler.check_installed()
  cost.tell(
    planned,
    slice_,
    lambda config: pretraining.compile_update(
      config,
      slice_,
      fast=True,
      resident=pretraining.resident_shape(config, slice_),
      stream=sys.stderr,
    ),
    price=options.price,
    stream=sys.stdout,
  )
  return 0


def _plan(options: argparse.Namespace, changes: list[str]) -> "Plan":
  """The runs that the options ask for."""
  from byol_flax.reproduce import plan

  def load(arg: str, changed: bool) -> Any:
    config = os.path.join(SHIPPED_CONFIGS, f"ablations.py:{arg}")
    more = changes if changed else ()
    return config_file.load_config([f"--config={config}", *more])

  planned = plan.make(options.table, options.scale, options.seeds, load)
  bounds.check("The last seed", planned.seeds[-1], SEED)
  return planned
