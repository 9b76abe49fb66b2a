"""What images are called in a file of features."""

import os
from collections.abc import Iterable

from input_pipeline import paths, sources


def of_images(source: sources.Source, numbers: Iterable[int]) -> list[str]:
  """An id of each of some images, the same wherever the data set lies.

  In a folder it is the path below the folder that `--data` names, with "/".
  Images of other sets have no files of their own: there it is the split and the
  number of the image in it, such as "train/17". A slice such as train[100:200]
  begins with number 100.

  Args:
    source: a split.
    numbers: of images in it.
  """
  kind, _, folder = source.name.partition(":")
  if kind in paths.FOLDERS:
    root = os.path.abspath(folder)
    return [
      printable(os.path.relpath(source.example_name(i), root)) for i in numbers
    ]
  while isinstance(source, sources.Part):
    examples = source.examples
    numbers = [int(examples[i]) for i in numbers]
    source = source.source
  return [f"{source.split}/{i}" for i in numbers]


def printable(name: str) -> str:
  r"""A file's name as text; bytes that are no UTF-8 become "\xe4" and so on."""
  return os.fsencode(name).decode("utf-8", "backslashreplace")
