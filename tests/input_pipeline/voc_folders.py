"""Writes small folders laid out as Pascal VOC's development kit."""

import io
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from input_pipeline import voc_classes

HEIGHT, WIDTH = 40, 60  # of an image, unless a test wants another


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
  return coarse.repeat(8, 0).repeat(8, 1)[:height, :width]


def write_image(
  root: pathlib.Path,
  name: str,
  *,
  size: tuple[int, int] = (HEIGHT, WIDTH),
  orientation: int = 1,
  seed: int = 0,
) -> None:
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = root / "JPEGImages" / name
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(picture(seed, *size)).save(path, exif=exif)


def thing(
  box: Sequence[float] = (11, 6, 30, 25), name: str = "cat", extra: str = ""
) -> str:
  """The XML of an object; `box` is VOC's: from one, with the last pixel."""
  edges = "".join(
    f"<{edge}>{value}</{edge}>"
    for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
  )
  return f"<object><name>{name}</name>{extra}<bndbox>{edges}</bndbox></object>"


def annotation(*things: str, size: tuple[int, int] = (HEIGHT, WIDTH)) -> str:
  height, width = size
  return (
    "<annotation><filename>other.jpg</filename><size>"
    f"<width>{width}</width><height>{height}</height><depth>3</depth></size>"
    f"{''.join(things)}</annotation>"
  )


def write_text(root: pathlib.Path, name: str, text: str) -> None:
  path = root / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


def write_boxes(root: pathlib.Path, name: str, text: str) -> None:
  write_text(root, f"Annotations/{name}.xml", text)


def palette_png(classes: np.ndarray) -> bytes:
  image = Image.fromarray(classes).convert("L")
  image = Image.frombytes("P", image.size, image.tobytes())
  image.putpalette(voc_classes.palette().ravel().tolist())
  return png(image)


def png(image: Image.Image) -> bytes:
  file = io.BytesIO()
  image.save(file, "PNG")
  return file.getvalue()


def write_bytes(root: pathlib.Path, name: str, data: bytes) -> None:
  path = root / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data)


def write_list(
  root: pathlib.Path, kind: str, split: str, lines: Sequence[str]
) -> None:
  write_text(root, f"ImageSets/{kind}/{split}.txt", "\n".join(lines) + "\n")


def jpeg(pixels: np.ndarray) -> bytes:
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "JPEG", quality=95)
  return file.getvalue()
