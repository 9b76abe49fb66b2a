"""`byol preflight`: says whether a run fits a slice, how fast, at what cost."""

import argparse
import sys
from typing import Any

from byol_flax.commands import libraries


def run(options: argparse.Namespace, config: Any) -> int:
  """Prints the verdict; the exit code says whether the run fits."""
  libraries.compile_for_tpus()
  # JAX reads the environment when it is imported, so it is imported only now.
  from byol_flax.preflight import verdict

  return verdict.preflight(
    config,
    options.slice,
    price=options.price,
    fast=options.fast,
    out=options.out,
    stream=sys.stdout,
  )
