"""Checks that the images are those that a run began with.

A checkpoint's record holds the number, classes and fingerprint that the images
had when the run began. They may lie elsewhere now, and files that the run found
unreadable may have been mended or removed.
"""

import dataclasses
import hashlib
import os
from typing import Any

from byol_flax.runs import data_sets
from byol_flax.runs.checkpoint import Record
from input_pipeline import sources, unreadable
from input_pipeline.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Opened:
  """The images that a run trains on.

  Attributes:
    source: the images; one that was removed since keeps its place and counts
      as unreadable.
    found_unreadable: what earlier starts of the run could not read.
    moved: a sentence if the images lie elsewhere now.
  """

  source: sources.Source
  found_unreadable: list[unreadable.Line]
  moved: tuple[str, ...]


def open_images(config: Any, saved: Record | None, workdir: str) -> Opened:
  """Opens the training split of `config` as the run in `workdir` knows it.

  Args:
    config: as made by configs/byol.py.
    saved: record of the run's newest checkpoint; None for a new run.
    workdir: of the run.

  Raises:
    UsageError: the split cannot be opened, or holds other images.
  """
  lines = unreadable.lines_of(workdir) if saved else []
  source = data_sets.open_split(config, began_with=unreadable.began_with(lines))
  moved: tuple[str, ...] = ()
  if saved:
    check_same_images(saved, describe(source), source.name, workdir, lines)
    before = saved["config"]["data"]["name"]
    if before != source.name:
      moved = (
        f"The images of {source.name} are those of {before}, with which the "
        "run began: the same fingerprint and classes.",
      )
  return Opened(source, lines, moved)


def describe(source: sources.Source) -> dict[str, Any]:
  """What a checkpoint records of the images."""
  names = b"\0".join(os.fsencode(name) for name in source.class_names)
  return {
    "num_examples": len(source),
    "num_classes": source.num_classes,
    "class_names_digest": hashlib.blake2b(names, digest_size=16).hexdigest(),
    "data_fingerprint": source.fingerprint,
  }


def check_same_images(
  saved: Record,
  now: dict[str, Any],
  name: str,
  workdir: str,
  lines: list[unreadable.Line],
) -> None:
  """Raises UsageError, with the difference, unless the images are the same.

  Args:
    saved: record of a checkpoint. Format 1 has no digest of class names. Its
      oldest records have no fingerprint either; then the name must be the same.
    now: `describe` of the images now.
    name: of the data set now.
    workdir: for the message.
    lines: about the images that the run could not read.
  """
  before = saved["config"]["data"]["name"]
  difference = _difference(saved, now)
  if not difference and "data_fingerprint" not in saved and before != name:
    difference = "it does not say which they were"
  if not difference:
    return
  those = "those" if before == name else f"those of {before}"
  free = len(unreadable.began_with(lines))
  raise UsageError(
    f"The images of {name} are not {those} that the run in {workdir} began "
    f"with: {difference}. Restore them"
    + (
      f" (but for the {free} that the run could not read, which may be mended "
      "or removed)"
      if free
      else ""
    )
    + ", or give another --workdir, or --restart to set that run aside."
  )


def _difference(saved: Record, now: dict[str, Any]) -> str:
  """The first difference, in words; "" if there is none."""
  for key, what in (("num_classes", "classes"), ("num_examples", "images")):
    if saved[key] != now[key]:
      return f"{saved[key]} {what} there, {now[key]} now"
  for key, what in (
    ("class_names_digest", "classes of other names"),
    ("data_fingerprint", "as many, but their fingerprints differ"),
  ):
    if saved.get(key) not in (None, now[key]):
      return what
  return ""
