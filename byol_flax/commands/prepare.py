"""`byol prepare`: writes images of any kind into shards for training."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from byol_flax.runs.progress_line import human_duration
from input_pipeline import full_disk, loading, tfds_metadata, whole_files
from input_pipeline.errors import RunError, UsageError
from input_pipeline.prepare import collecting, leaks, shards
from input_pipeline.prepare.collecting import Item
from input_pipeline.prepare.shards import PreparedSplit

_SECONDS_BETWEEN_LINES = 5.0
_CLASSES_TOLD = 5


def run(options: argparse.Namespace) -> int:
  """Prepares every split of a source, and looks for leaks between them.

  Raises:
    UsageError: for all that a user can mend.
    RunError: the disk is full or fails.
  """
  source, out_dir, stream = options.source, options.out, sys.stdout
  num_workers = options.workers
  name = options.name or _name_of(source)
  tfds_metadata.check_names(name, options.version, options.split)
  others = [_folder_and_split(text) for text in options.against]
  if reason := whole_files.why_unwritable(out_dir):
    raise UsageError(
      f"OUT should be a folder to write to, but {out_dir!r} is not: {reason}."
    )
  if num_workers == -1:
    num_workers = loading.available_cores()
  progress = _Progress(stream)
  splits, ignored = collecting.collect(source, options.split)
  if options.labels:
    splits = {
      which: collecting.with_labels(items, options.labels)
      for which, items in _only(splits, options.labels).items()
    }
  if ignored:
    stream.write(f"{source}: {ignored}\n")
  classes = {
    item.class_name or "" for items in splits.values() for item in items
  } - {""}
  for which, items in splits.items():
    prepared = _write_split(
      items,
      os.path.abspath(out_dir),
      name,
      which,
      version=options.version,
      classes=sorted(classes),
      keep_duplicates=options.keep_duplicates,
      longest_side=options.longest_side,
      num_workers=num_workers,
      tell=progress.tell,
    )
    _say_prepared(
      which, prepared, options.keep_duplicates, options.longest_side, stream
    )
    others += [
      (prepared.folder, other)
      for other in tfds_metadata.splits_of(prepared.folder)
      if other not in splits
    ]
  folder = prepared.folder
  pairs = [(which, *other) for which in splits for other in others]
  pairs += [
    (a, folder, b) for a in splits for b in splits if (a, b) != (b, a) and a > b
  ]
  for which, other_folder, other in pairs:
    _say_leaks(folder, which, other_folder, other, progress, stream)
  stream.write(_hint(name, out_dir, tfds_metadata.splits_of(folder)))
  return 0


def _write_split(*args: Any, **options: Any) -> PreparedSplit:
  """Calls `shards.write_split`; if the disk fails, says what to do."""
  try:
    return shards.write_split(*args, **options)
  except OSError as error:
    if full_disk.problem(error):
      raise
    raise RunError(
      f"The preparation ended: {error}. What is finished stays; the same "
      "command goes on from there."
    ) from error


def _hint(name: str, out_dir: str, splits: Sequence[str]) -> str:
  flags = f"--config.data.name={name}"
  flags += f" --config.loader.data_dir={shlex.quote(os.path.abspath(out_dir))}"
  if "validation" in splits and "test" not in splits:
    flags += " --config.evaluation.split=validation"
  return f"Train on it with {flags}\n"


def _name_of(source: str) -> str:
  """A name that TFDS accepts, made from the last part of a path."""
  stem = os.path.basename(os.path.abspath(source)).split(".")[0].lower()
  name = "".join(x if x.isascii() and x.isalnum() else "_" for x in stem)
  return name if name[:1].isalpha() else f"set_{name}"


def _only(splits: dict[str, list[Item]], labels: str) -> dict[str, list[Item]]:
  if len(splits) > 1:
    raise UsageError(
      f"--labels={labels} belongs to one split, but the source has "
      f"{', '.join(splits)}; prepare each split by itself."
    )
  return splits


def _folder_and_split(text: str) -> tuple[str, str]:
  folder, colon, split = text.rpartition(":")
  if not colon or not folder or not split or not leaks.is_known(folder, split):
    raise UsageError(
      f"--against is {text!r}; expected the folder of a set that `byol "
      "prepare` made, and one of its splits, such as /data/photos/1.0.0:train."
    )
  return os.path.abspath(folder), split


def _say_prepared(
  split: str,
  prepared: PreparedSplit,
  keep_duplicates: bool,
  longest_side: int | None,
  stream: TextIO,
) -> None:
  stream.write(
    f"{split}: {prepared.examples:,} images, {_classes_of(prepared.folder)}, "
    f"in {prepared.shards} shard(s) in {prepared.folder}; fingerprint "
    f"{prepared.fingerprint}\n"
  )
  for count, words in (
    (len(prepared.corrupt), "cannot be decoded and were left out"),
    (
      len(prepared.duplicates),
      "have the bytes of another one and were "
      + ("kept all the same" if keep_duplicates else "left out"),
    ),
  ):
    if count:
      stream.write(
        f"{split}: {count:,} {words}; see "
        f"{os.path.join(prepared.folder, f'quarantine-{split}.tsv')}\n"
      )
  if longest_side:
    stream.write(
      f"{split}: larger images were made smaller, to at most {longest_side} "
      "pixels a side\n"
    )


def _classes_of(folder: str) -> str:
  classes = tfds_metadata.classes_of(folder) or []
  more = ", ..." if len(classes) > _CLASSES_TOLD else ""
  named = f" ({', '.join(classes[:_CLASSES_TOLD])}{more})" if classes else ""
  plural = "" if len(classes) == 1 else "es"
  return f"{len(classes) or 'no'} class{plural}{named}"


def _say_leaks(
  folder: str,
  split: str,
  other_folder: str,
  other: str,
  progress: "_Progress",
  stream: TextIO,
) -> None:
  found = leaks.find(folder, split, other_folder, other, progress.tell)
  where = f"{other} of {other_folder}" if other_folder != folder else other
  if not found:
    stream.write(f"{split}: no image occurs in {where}\n")
    return
  set_name, version = other_folder.split(os.sep)[-2:]
  outside = "" if other_folder == folder else f"{set_name}-{version}-"
  path = leaks.write(folder, f"{split}-in-{outside}{other}", found)
  stream.write(
    f"{split}: {len(found):,} image(s) occur in {where} too; see {path}\n"
  )


class _Progress:
  """Writes a line now and then; on a terminal it rewrites one in place."""

  def __init__(self, stream: TextIO) -> None:
    self._stream = stream
    self._in_place = stream.isatty()
    self._phase, self._begun, self._first = "", 0.0, 0
    self._next = 0.0

  def tell(self, phase: str, done: int, total: int) -> None:
    """Says that `done` of `total` are done."""
    now = time.monotonic()
    if phase != self._phase:
      self._phase, self._begun, self._first = phase, now, done
      self._next = now + (0 if self._in_place else _SECONDS_BETWEEN_LINES)
    last = done >= total
    if now < self._next and not (last and self._in_place):
      return
    self._next = now + (0.2 if self._in_place else _SECONDS_BETWEEN_LINES)
    rate = (done - self._first) / max(now - self._begun, 1e-9)
    left = human_duration((total - done) / rate) if rate else "?"
    line = (
      f"{phase}: {done:,}/{total:,} {100 * done // total}% | {rate:,.0f}/s | "
      f"ETA {left}"
    )
    if self._in_place:
      end = "\n" if last else ""
      self._stream.write(f"\r{line:<70}{end}")
    else:
      self._stream.write(line + "\n")
    self._stream.flush()
