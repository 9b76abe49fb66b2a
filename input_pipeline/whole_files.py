"""Files that are written whole or not at all."""

import os

import numpy as np


def write_text(path: str, text: str) -> None:
  """Writes a text file."""
  temporary = f"{path}.writing"
  with open(temporary, "w") as file:
    file.write(text)
  os.replace(temporary, path)


def write_arrays(path: str, arrays: dict[str, np.ndarray]) -> None:
  """Writes arrays to an .npz file, without pickles."""
  temporary = f"{path}.writing.npz"
  np.savez(temporary, allow_pickle=False, **arrays)
  os.replace(temporary, path)
