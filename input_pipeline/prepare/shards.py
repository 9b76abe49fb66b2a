"""Writes any images into sharded ArrayRecord files that TFDS reads too.

This takes two passes. Many processes work on each, and after a kill each goes
on where it stopped. The first pass looks at every image: whether it can be
decoded, and the hashes of its bytes and its look. The second writes what is
kept into shards. Their order depends on names alone, so a part of a split is a
fair sample, and a repeated preparation gives the same files to the byte.
"""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from input_pipeline import locks, tfds_metadata, whole_files
from input_pipeline.decoding import ImageError, decode_image
from input_pipeline.errors import UnreadableError, UsageError
from input_pipeline.prepare import array_records, likeness, plans, shrinking
from input_pipeline.prepare.collecting import Item
from input_pipeline.prepare.leaks import hashes_path
from input_pipeline.prepare.likeness import Hashes
from input_pipeline.prepare.pool import run_all

_BLOCK = 1024  # a process looks at so many images at a time
_SHARD_BYTES = 128 * 2**20

Tell = Callable[[str, int, int], None]  # phase, done, of how many


@dataclasses.dataclass(frozen=True)
class PreparedSplit:
  """What became of the images of a split.

  Attributes:
    folder: where the data set is.
    examples: how many were written.
    corrupt: what was left out: (name, reason).
    duplicates: images that occur twice: (name, name of the first).
    shards: how many files were written.
    fingerprint: of names, classes and contents of all examples.
  """

  folder: str
  examples: int
  corrupt: list[tuple[str, str]]
  duplicates: list[tuple[str, str]]
  shards: int
  fingerprint: str

  def facts(self) -> dict[str, Any]:
    """All but the folder: a prepared set may be moved."""
    facts = dataclasses.asdict(self)
    del facts["folder"]
    return facts


def write_split(
  items: Sequence[Item],
  out_dir: str,
  name: str,
  split: str,
  *,
  version: str,
  classes: Sequence[str],
  keep_duplicates: bool,
  longest_side: int | None,
  num_workers: int,
  tell: Tell,
) -> PreparedSplit:
  """Writes one split of a data set.

  Args:
    items: its images.
    out_dir: TFDS's data_dir; the set is at out_dir/name/version.
    name: of the data set.
    split: TFDS's name of the split.
    version: of the data set, such as 1.0.0.
    classes: of all splits, in the order of the labels; none for no labels.
    keep_duplicates: whether to write images whose bytes came before, too.
    longest_side: in pixels; larger images are made smaller to fit it. None
      leaves all as they are. Images are compared as they were before.
    num_workers: how many processes.
    tell: is told of the progress.

  Raises:
    UsageError: the folder holds something else, or nothing is left to write.
  """
  tfds_metadata.check_names(name, version, split)
  folder = os.path.join(out_dir, name, version)
  work = plans.work_folder(folder, split)
  tfds_metadata.check_ours(folder)
  items = sorted(items, key=plans.place)
  classes = plans.agreed(classes, folder)
  plan = plans.digest(items, classes, keep_duplicates, longest_side)
  if before := tfds_metadata.facts_of(folder, split):
    if before["plan"] != plan:
      raise UsageError(
        f"{folder} has a split {split} of other images, or of these with other "
        "options; remove the folder, or give another --name."
      )
    if split in tfds_metadata.splits_of(folder):
      tfds_metadata.check_shards(folder, name, split)
      plans.forget(work)
      return PreparedSplit(folder=folder, **before["kept"])
  plans.begin(work, plan)
  try:
    with locks.taken(os.path.join(work, "lock")):
      result = _write_split(
        items,
        classes,
        folder,
        name,
        split,
        plan,
        keep_duplicates,
        longest_side,
        num_workers,
        tell,
      )
      shutil.rmtree(work)
  except locks.TakenError as holder:
    raise UsageError(
      f"Split {split} of {folder} is being prepared already, by {holder}; "
      "wait for it, or end it, and give the same command again."
    ) from None
  return result


def _write_split(
  items: Sequence[Item],
  classes: Sequence[str],
  folder: str,
  name: str,
  split: str,
  plan: str,
  keep_duplicates: bool,
  longest_side: int | None,
  num_workers: int,
  tell: Tell,
) -> PreparedSplit:
  """Makes both passes, and declares at the end what they wrote."""
  work = plans.work_folder(folder, split)
  found = _look_at(items, work, num_workers, tell)
  chosen, corrupt, twice = _choose(items, found, keep_duplicates)
  lengths, num_bytes = _write_shards(
    items,
    chosen,
    classes,
    folder,
    name,
    split,
    found,
    longest_side,
    num_workers,
    tell,
  )
  result = PreparedSplit(
    folder=folder,
    examples=len(chosen),
    corrupt=corrupt,
    duplicates=twice,
    shards=len(lengths),
    fingerprint=_fingerprint(items, chosen, found.hashes, longest_side),
  )
  _write_reports(result, split)
  whole_files.write_arrays(
    hashes_path(folder, split),
    {
      "content": found.hashes.content[chosen],
      "look": found.hashes.look[chosen],
      "names": np.array([items[i].name.encode() for i in chosen]),
    },
  )
  tfds_metadata.add_split(
    folder,
    name,
    split,
    lengths=lengths,
    num_bytes=num_bytes,
    classes=classes,
    facts={
      "fingerprint": result.fingerprint,
      "plan": plan,
      "kept": result.facts(),
    },
  )
  return result


def _choose(
  items: Sequence[Item], found: "_Looked", keep_duplicates: bool
) -> tuple[np.ndarray, list[tuple[str, str]], list[tuple[str, str]]]:
  """Numbers of the items to write, what is corrupt and what occurs twice.

  Raises:
    UsageError: nothing is left.
  """
  names = [item.name for item in items]
  corrupt = [
    (name, reason)
    for name, reason in zip(names, found.reasons, strict=True)
    if reason
  ]
  kept = np.array([not reason for reason in found.reasons])
  twice = [
    (i, first)
    for i, first in likeness.duplicates(found.hashes.content)
    if kept[i]
  ]
  if not keep_duplicates:
    kept[[i for i, _ in twice]] = False
  if not kept.any():
    name, reason = corrupt[0]
    raise UsageError(
      f"Of {len(items)} images not one can be decoded; the first is {name} "
      f"({reason})."
    )
  return (
    np.flatnonzero(kept),
    corrupt,
    [(names[i], names[first]) for i, first in twice],
  )


@dataclasses.dataclass(frozen=True)
class _Looked:
  """What the first pass found: hashes, and why not to keep an image, or ""."""

  reasons: list[str]
  hashes: Hashes


def _look_at(
  items: Sequence[Item], work: str, num_workers: int, tell: Tell
) -> _Looked:
  blocks = [
    (items[start : start + _BLOCK], os.path.join(work, f"looked-{start}.npz"))
    for start in range(0, len(items), _BLOCK)
  ]
  missing = [block for block in blocks if not os.path.exists(block[1])]
  done = sum(len(part) for part, path in blocks if os.path.exists(path))
  for part in run_all(_look_at_block, missing, num_workers):
    done += part
    tell("looking at images", done, len(items))
  parts = [
    whole_files.read_arrays(path, whole_files.FOUND_AGAIN) for _, path in blocks
  ]
  return _Looked(
    reasons=[str(x) for part in parts for x in part["reasons"]],
    hashes=Hashes(
      *(np.concatenate([part[k] for part in parts]) for k in Hashes._fields)
    ),
  )


def _look_at_block(items: Sequence[Item], path: str) -> int:
  """In a worker: looks at some images and keeps what it finds at `path`."""
  reasons = []
  hashes = Hashes(*(np.zeros((len(items), 2), np.uint64) for _ in range(2)))
  for i, item in enumerate(items):
    reason = ""
    try:
      data = item.read()
      hashes.content[i] = likeness.content_hash(data)
      hashes.look[i] = likeness.look_hash(decode_image(data))
    except (ImageError, UnreadableError) as error:
      reason = " ".join(str(error).split()) or type(error).__name__
      # A file that cannot be read must not count as the same as another.
      hashes.content[i] = likeness.content_hash(item.name.encode())
    reasons.append(reason)
  whole_files.write_arrays(
    path, {"reasons": np.array(reasons), **hashes._asdict()}
  )
  return len(items)


def _write_shards(
  items: Sequence[Item],
  chosen: np.ndarray,
  classes: Sequence[str],
  folder: str,
  name: str,
  split: str,
  found: _Looked,
  longest_side: int | None,
  num_workers: int,
  tell: Tell,
) -> tuple[list[int], int]:
  """Writes the shards that are missing.

  Returns:
    How many examples each shard has, and the bytes of all together.
  """
  total = sum(items[i].size for i in chosen)
  count = max(1, min(len(chosen), round(total / _SHARD_BYTES)))
  parts = np.array_split(chosen, count)
  number = {class_name: i for i, class_name in enumerate(classes)}
  tasks, sizes = [], {}
  for k, part in enumerate(parts):
    path = os.path.join(folder, tfds_metadata.shard_name(name, split, k, count))
    if os.path.exists(path):
      sizes[path] = os.path.getsize(path)
      continue
    examples = [
      (
        items[i],
        number.get(items[i].class_name or "", -1),
        found.hashes.content[i],
      )
      for i in part
    ]
    tasks.append((path, examples, bool(classes), longest_side))
  done = len(sizes)
  for path, size in run_all(_write_shard, tasks, num_workers):
    sizes[path] = size
    done += 1
    tell("writing shards", done, count)
  return [len(part) for part in parts], sum(sizes.values())


def _write_shard(
  path: str,
  examples: Sequence[tuple[Item, int, np.ndarray]],
  labelled: bool,
  longest_side: int | None,
) -> tuple[str, int]:
  """In a worker: writes one shard; returns its path and its bytes."""

  def encoded() -> Iterable[bytes]:
    for item, label, content in examples:
      try:
        data = item.read()
      except UnreadableError:
        data = b""  # no longer what was looked at
      if not np.array_equal(likeness.content_hash(data), content):
        raise UsageError(
          f"{item.name} of {item.path} changed while it was prepared. When the "
          f"images change no more, remove {os.path.dirname(path)} and begin "
          "anew."
        )
      if longest_side:
        data = shrinking.shrink(data, longest_side)
      name = item.name.encode()
      example: dict[str, array_records.Value] = {
        "file_name": name,
        "image": data,
      }
      if labelled:
        example["label"] = label
      yield array_records.encode(example)

  return path, array_records.write(path, encoded())


def _fingerprint(
  items: Sequence[Item],
  chosen: np.ndarray,
  hashes: Hashes,
  longest_side: int | None,
) -> str:
  digest = hashlib.blake2b(digest_size=16)
  if longest_side:
    digest.update(f"longest side {longest_side}".encode())
  for i in chosen:
    digest.update(f"{items[i].name}\0{items[i].class_name}\0".encode())
    digest.update(hashes.content[i].tobytes())
  return digest.hexdigest()


def _write_reports(result: PreparedSplit, split: str) -> None:
  """Writes what was left out, and why, as tab-separated lines."""
  lines = [f"{name}\tcorrupt\t{reason}" for name, reason in result.corrupt]
  lines += [f"{name}\tsame as\t{first}" for name, first in result.duplicates]
  path = os.path.join(result.folder, f"quarantine-{split}.tsv")
  whole_files.write_text(path, "".join(f"{line}\n" for line in lines))
