"""`byol goodput`: tells where the time of a run went, over all its attempts."""

import argparse
import sys

from byol_flax.runs import goodput


def run(options: argparse.Namespace) -> int:
  """Prints one line, which a running attempt is part of."""
  totals = goodput.of_workdir(options.workdir)
  sys.stdout.write(totals.sentence() + "\n")
  return 0
