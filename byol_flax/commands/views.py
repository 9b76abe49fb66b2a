"""`byol views`: shows what the augmentation does, before any run."""

import argparse
import sys
from typing import Any

from byol_flax.pretrain import train
from byol_flax.reports import png
from byol_flax.runs import data_sets
from input_pipeline import full_disk, sources
from input_pipeline.errors import UsageError


def run(options: argparse.Namespace, config: Any) -> int:
  """Writes a PNG of the first images of update 0 and their two views."""
  out, count = options.out, options.count
  png.check_ours(out)
  source = sources.ReadableSource(data_sets.open_split(config))
  sys.stdout.write(f"{sources.summary(source)}\n")
  grid, unreadable = train.view_grid(source, config.augment, config.seed, count)
  try:
    png.save_png(out, grid)
  except OSError as error:
    if full_disk.problem(error):
      raise
    raise UsageError(f"Cannot write {out}: {error.strerror}.") from None
  sys.stdout.write(
    f"{unreadable} of the {count} images drawn could not be read\n"
    f"Written to {out}\n"
  )
  return 0
