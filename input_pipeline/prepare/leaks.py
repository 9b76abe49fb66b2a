"""Finds images of one prepared split that also occur in another."""

import os
from collections.abc import Callable

from input_pipeline import whole_files
from input_pipeline.errors import UsageError
from input_pipeline.prepare import likeness
from input_pipeline.prepare.likeness import Hashes


def hashes_path(folder: str, split: str) -> str:
  """Path of the file with the hashes of a prepared split."""
  return os.path.join(folder, f"hashes-{split}.npz")


def is_known(folder: str, split: str) -> bool:
  """Whether `byol prepare` made this split there."""
  return os.path.exists(hashes_path(folder, split))


def find(
  folder: str,
  split: str,
  other_folder: str,
  other_split: str,
  tell: Callable[[str, int, int], None],
) -> list[tuple[str, str, str]]:
  """Finds images of one prepared split that also occur in another.

  Returns:
    (name, name in the other, how they are alike).

  Raises:
    UsageError: one of them was not made by `byol prepare`.
  """
  sides = []
  for place, which in ((folder, split), (other_folder, other_split)):
    path = hashes_path(place, which)
    if not os.path.exists(path):
      raise UsageError(
        f"{place} has no hashes of split {which}; both sides must have been "
        "made by `byol prepare`."
      )
    sides.append(whole_files.read_arrays(path))
  ours, theirs = sides
  pairs = likeness.common(
    Hashes(ours["content"], ours["look"]),
    Hashes(theirs["content"], theirs["look"]),
    tell=lambda done, total: tell("looking for leaks", done, total),
  )
  return [
    (
      ours["names"][pair.ours].decode(),
      theirs["names"][pair.theirs].decode(),
      "same bytes"
      if pair.distance < 0
      else f"looks alike ({pair.distance} of 128 bits differ)",
    )
    for pair in pairs
  ]


def write(folder: str, split: str, found: list[tuple[str, str, str]]) -> str:
  """Writes what `find` found and returns the path."""
  path = os.path.join(folder, f"leaks-{split}.tsv")
  whole_files.write_text(
    path, "".join("\t".join(line) + "\n" for line in found)
  )
  return path
