"""`byol import`: weights of other programs, read with proof."""

import argparse
import functools

from byol_flax.commands import export_weights


def run(options: argparse.Namespace) -> int:
  """Writes DIR/weights.npz, and prints the proof."""
  export_weights.settle()
  from byol_flax.weights import importing

  importing.run(options.file, options.out, functools.partial(print, flush=True))
  return 0
