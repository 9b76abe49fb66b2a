"""Are the images those that a run began with?

The record of a checkpoint holds number, classes and fingerprint of the images
as the run began. The place where they lie may change; and of the files that the
run itself found unreadable each may be mended or removed.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

from byol_flax.checkpoint import Record
from input_pipeline import file_names, folders, sources, unreadable
from input_pipeline.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Opened:
  """The images that a run trains on.

  Attributes:
    source: with those that were removed since in their places, unreadable.
    begun: how the run saw them first, for its other splits.
    found_unreadable: by earlier starts of the run.
    moved: a sentence if they lie elsewhere now.
  """

  source: sources.Source
  begun: folders.Begun
  found_unreadable: Sequence[unreadable.Line] = ()
  moved: tuple[str, ...] = ()


def open_images(config: Any, saved: Record | None, workdir: str) -> Opened:
  """Opens the training split of `config` as the run in `workdir` knows it.

  Args:
    config: as made by configs/byol.py.
    saved: record of the run's newest checkpoint; None for a new run.
    workdir: of the run.

  Raises:
    UsageError: it cannot be opened, or holds other images.
  """
  lines = unreadable.lines_of(workdir) if saved else []
  split = config.data.split
  begun = folders.Begun(split, unreadable.began_with(lines), _rule(saved))
  source = sources.open_source(
    config.data.name, split, config.loader.data_dir, begun
  )
  moved: tuple[str, ...] = ()
  if saved:
    now = describe(Opened(source, begun))
    check_same_images(saved, now, source.name, workdir, lines)
    before = saved["config"]["data"]["name"]
    if before != source.name:
      moved = (
        f"The images of {source.name} are those of {before}, with which the "
        "run began: the same fingerprint and classes.",
      )
  return Opened(source, begun, lines, moved)


def _rule(saved: Record | None) -> file_names.Rule:
  """Which files the run took for images when it began."""
  if saved is None:
    return file_names.rule_of_today()
  if rule := saved.get("image_rule"):
    return file_names.Rule(**{name: tuple(rule[name]) for name in rule})
  return file_names.RULE_OF_FORMAT_1


def describe(opened: Opened) -> dict[str, Any]:
  """What a checkpoint records of the images."""
  source = opened.source
  rule = opened.begun.rule or file_names.rule_of_today()
  names = b"\0".join(os.fsencode(name) for name in source.class_names)
  return {
    "num_examples": len(source),
    "num_classes": source.num_classes,
    "class_names_digest": hashlib.blake2b(names, digest_size=16).hexdigest(),
    "data_fingerprint": source.fingerprint,
    "image_rule": rule._asdict(),
  }


def check_same_images(
  saved: Record,
  now: dict[str, Any],
  name: str,
  workdir: str,
  lines: Sequence[unreadable.Line],
) -> None:
  """Raises UsageError, with the difference, unless the images are the same.

  Args:
    saved: record of a checkpoint. Format 1 has no digest of class names, and
      the first of its records no fingerprint; then the name counts.
    now: `describe` of the images now.
    name: of the data set now.
    workdir: for the message.
    lines: of the images that the run could not read.
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
  """What differs first, in words; "" if nothing does."""
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
