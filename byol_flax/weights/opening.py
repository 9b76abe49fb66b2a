"""Tells weight files from runs and from each other, and finds what they hold.

A format is told by the first bytes of a file, never by its name.
"""

import hashlib
import os
from collections.abc import Callable

from byol_flax.weights import deepmind, npz, torch_files, torch_weights
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Foreign

_CHUNK = 2**22  # bytes
# The file with the weights of a folder; the first that is there counts.
IN_FOLDERS = (npz.FILE, *torch_weights.FILES)


def file_of(where: str) -> str | None:
  """The weight file that a path means; None if it is none, but perhaps a run.

  It is the path itself if that is a file, or the one weight file in a folder
  that `byol import`, `byol export` or Hugging Face's libraries wrote.

  Args:
    where: an absolute path; a bucket holds runs only.
  """
  if os.path.isfile(where):
    return where
  for name in IN_FOLDERS:
    path = os.path.join(where, name)
    if os.path.isfile(path):
      return path
  return None


def open_weights(path: str) -> Foreign:
  """Finds the weights in a file; reads no array yet.

  Args:
    path: as `file_of` gives it.

  Raises:
    WeightsError: it is of no known format, damaged, or refused. The sentence
      begins with the path.
  """
  try:
    return _reader(path)(path)
  except WeightsError as error:
    raise WeightsError(f"{path}: {error}") from None
  except OSError as error:
    raise WeightsError(
      f"{path} cannot be read ({error.strerror or error})."
    ) from None


def _reader(path: str) -> Callable[[str], Foreign]:
  """The function that reads files which begin as this one does."""
  with open(path, "rb") as file:
    head = file.read(16)
  if torch_files.is_one(path) or head[8:9] == b"{":  # .safetensors
    return torch_weights.read
  if head.startswith(b"PK\x03\x04"):
    return npz.read
  if head.startswith(b"\x80"):
    return deepmind.read
  raise WeightsError(
    "It is no weight file of a known format; expected a checkpoint of the "
    "authors (.pkl) or of PyTorch (.pth), .safetensors, or what `byol import` "
    "and `byol export` write."
  )


def sha256(path: str) -> str:
  """SHA-256 of a file, hexadecimal."""
  total = hashlib.sha256()
  with open(path, "rb") as file:
    while chunk := file.read(_CHUNK):
      total.update(chunk)
  return total.hexdigest()
