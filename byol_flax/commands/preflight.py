"""`byol preflight`: does a run fit a slice, how fast, at what cost."""

import argparse
import sys
from typing import Any

from byol_flax.commands import libraries


def run(options: argparse.Namespace, config: Any) -> int:
  """Asks for the verdict; the exit code says whether the run fits."""
  libraries.compile_for_tpus()
  # JAX reads the environment when it is imported, so not before now.
  from byol_flax.preflight import verdict

  return verdict.preflight(
    config,
    options.slice,
    price=options.price,
    fast=options.fast,
    out=options.out,
    stream=sys.stdout,
  )
