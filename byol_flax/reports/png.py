"""PNG files: written whole, and never over what somebody else made."""

import io

import numpy as np
from etils import epath
from PIL import Image, PngImagePlugin

from input_pipeline import whole_files
from input_pipeline.errors import UsageError

_MADE_BY = ("Software", "byol-flax")  # a text within each PNG file


def save_png(path: str, image: np.ndarray) -> None:
  """Writes uint8 [H, W, 3] to `path`; no reader ever sees half a file."""
  epath.Path(path).parent.mkdir(parents=True, exist_ok=True)
  about = PngImagePlugin.PngInfo()
  about.add_text(*_MADE_BY)
  encoded = io.BytesIO()
  Image.fromarray(image).save(encoded, format="png", pnginfo=about)
  whole_files.write_bytes(path, encoded.getvalue())


def check_ours(path: str) -> None:
  """Checks, before the work, that `save_png` may write there.

  Raises:
    UsageError: there is a file that `save_png` did not make.
  """
  target = epath.Path(path)
  if not target.exists():
    return
  try:
    with Image.open(io.BytesIO(target.read_bytes()), formats=("PNG",)) as image:
      key, value = _MADE_BY
      if image.info.get(key) == value:
        return
  except (OSError, ValueError):
    pass
  raise UsageError(
    f"Cannot write {path}: that file is there and was not written by byol; "
    "move it away, or give another --out."
  )
