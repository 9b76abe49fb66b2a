"""The files of TensorBoard's projector: features, what they are of, thumbnails.

TensorBoard looks for `projector_config.pbtxt` in the folder of its events. The
paths in it are relative to that folder and may not lead out of it.
"""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from PIL import Image

from input_pipeline import whole_files

CONFIG = "projector_config.pbtxt"
_FOLDER = "projector"
_FEATURES, _ABOUT, _SPRITE = (
  f"{_FOLDER}/{name}"
  for name in ("features.bytes", "metadata.tsv", "sprite.png")
)
SIDE = 32  # pixels of a thumbnail
# The browser's textures have at most 8,192 pixels on a side.
MOST = (8192 // SIDE) ** 2


def write(
  folder: epath.Path,
  features: np.ndarray,
  about: Mapping[str, Sequence[str]],
  images: np.ndarray,
) -> None:
  """Writes the projector's files; its config last, when all others are there.

  Args:
    folder: that of the events.
    features: float [M, F], of at most `MOST` images.
    about: name of a column -> M texts; at least two columns.
    images: uint8 [M, SIDE, SIDE, 3].
  """
  values = np.ascontiguousarray(features, "<f4").copy()
  # TensorBoard tries to read text first. A byte that no UTF-8 text has tells it
  # at once that this is none; the number changes by 2^-15 of itself at most.
  values.reshape(-1)[:1].view(np.uint8)[0] = 0xFF
  (folder / _FOLDER).mkdir(parents=True, exist_ok=True)
  whole_files.write_bytes(folder / _FEATURES, values.tobytes())
  rows = [tuple(about), *zip(*about.values(), strict=True)]
  lines = ("\t".join(" ".join(cell.split()) for cell in row) for row in rows)
  whole_files.write_text(folder / _ABOUT, "\n".join(lines) + "\n")
  encoded = io.BytesIO()
  Image.fromarray(sprite(images)).save(encoded, format="png")
  whole_files.write_bytes(folder / _SPRITE, encoded.getvalue())
  shape = "".join(f"  tensor_shape: {n}\n" for n in values.shape)
  whole_files.write_text(
    folder / CONFIG,
    "embeddings {\n"
    '  tensor_name: "representations of test images"\n'
    f'{shape}  tensor_path: "{_FEATURES}"\n  metadata_path: "{_ABOUT}"\n'
    f'  sprite {{\n    image_path: "{_SPRITE}"\n'
    f"    single_image_dim: {SIDE}\n    single_image_dim: {SIDE}\n  }}\n}}\n",
  )


def read(folder: epath.Path) -> tuple[np.ndarray, dict[str, list[str]]]:
  """The features [M, F], and the columns, that `write` left."""
  head, *rows = (folder / _ABOUT).read_text().splitlines()
  cells = zip(*(row.split("\t") for row in rows), strict=True)
  about = dict(zip(head.split("\t"), map(list, cells), strict=True))
  values = np.frombuffer((folder / _FEATURES).read_bytes(), "<f4")
  return values.reshape(len(rows), -1), about


def sprite(images: np.ndarray) -> np.ndarray:
  """Square of thumbnails [M, S, S, 3], row by row: uint8 [C·S, C·S, 3]."""
  count, size = images.shape[:2]
  columns = math.ceil(math.sqrt(count))
  grid = np.full((columns**2, size, size, 3), 255, np.uint8)
  grid[:count] = images
  tiles = grid.reshape(columns, columns, size, size, 3)
  return tiles.swapaxes(1, 2).reshape(columns * size, columns * size, 3)


def thumbnail(image: np.ndarray) -> np.ndarray:
  """Reduces or enlarges a square uint8 [S, S, 3] to a thumbnail's size."""
  smooth = Image.Resampling.BOX
  return np.array(Image.fromarray(image).resize((SIDE, SIDE), smooth))
