"""`byol preflight`: says whether a run fits a slice, how fast, at what cost."""

import argparse
import sys
from typing import Any

from byol_flax.commands import config_bounds, libraries
from byol_flax.commands.evaluate import read_run_config
from input_pipeline.errors import UsageError


def run(options: argparse.Namespace, config: Any) -> int:
  """Prints the verdict; the exit code says whether the run fits."""
  evaluates = config_bounds.evaluates(config)
  if options.encoder and not evaluates:
    raise UsageError(
      "--encoder is for evaluations, but the config is one of pre-training. "
      "Leave out --encoder, or give the config of a protocol, such as "
      "configs/linear.py."
    )
  if options.fast and evaluates:
    raise UsageError(
      "--fast is for pre-training; the programs of an evaluation are compiled "
      "whole. Leave out --fast."
    )
  libraries.compile_for_tpus()
  # JAX reads the environment when it is imported, so it is imported only now.
  from byol_flax import slices
  from byol_flax.preflight import compiler, evaluations, pretraining, verdict
  from byol_flax.runs.out_files import check_writable

  compiler.check_installed()
  slice_ = slices.find(options.slice)
  check_writable(options.out)
  if evaluates:
    subject = evaluations.subject(
      config,
      options.encoder,
      slice_,
      read_config=read_run_config,
      stream=sys.stdout,
    )
  else:
    subject = pretraining.subject(
      config, slice_, fast=options.fast, stream=sys.stdout
    )
  return verdict.preflight(
    subject, slice_, price=options.price, out=options.out, stream=sys.stdout
  )
