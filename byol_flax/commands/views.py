"""`byol views`: what the augmentation does, before a run is paid for."""

from typing import Any, TextIO

from byol_flax.pretrain import train
from byol_flax.reports import pictures
from input_pipeline import full_disk, sources
from input_pipeline.errors import UsageError


def draw(config: Any, out: str, count: int, *, stream: TextIO) -> None:
  """Writes a PNG of the first images of update 0 and their two views.

  Args:
    config: as made by configs/byol.py.
    out: path of the PNG.
    count: images, at least 1.
    stream: console.

  Raises:
    UsageError: for all that a user can mend.
  """
  pictures.check_ours(out)
  source = sources.ReadableSource(
    sources.open_source(
      config.data.name, config.data.split, config.loader.data_dir
    )
  )
  stream.write(f"{sources.summary(source)}\n")
  grid, unreadable = train.view_grid(source, config, count)
  try:
    pictures.save_png(out, grid)
  except OSError as error:
    if full_disk.problem(error):
      raise
    raise UsageError(f"Cannot write {out}: {error.strerror}.") from None
  stream.write(
    f"{unreadable} of the {count} images drawn could not be read\n"
    f"Written to {out}\n"
  )
