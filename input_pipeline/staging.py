"""Copies the shards of a data set to local storage, once for each host.

The order of images is drawn over the whole data set, and every batch is cut
into rows of processes only then. So each host needs images of every shard in
every epoch, and there is no part of the shards that would be enough for it: it
copies all shards of the splits that it reads.

A copy lies in STAGE_DIR/<digest of the original's folder>/NAME/VERSION, so that
data sets of one name do not meet. `staged.jsonl` has a line for each file that
is whole and verified. A line counts as long as the original has the size and
time that it names, and the copy that size.
"""

import dataclasses
import hashlib
import json
import os
import queue
import re
import shutil
import threading
import time
from collections.abc import Mapping
from typing import Any

from etils import epath

from input_pipeline import (
  appending,
  copying,
  full_disk,
  locks,
  retries,
  whole_files,
)
from input_pipeline.errors import DiskFullError, UnreadableError, UsageError

_SHARD = re.compile(r".*-\d{5,}-of-\d{5,}")
_LINES = "staged.jsonl"
_LOCK = "staging.lock"
_THREADS = 16  # files that are copied at a time
_SPARE = 2**30  # bytes that stay free


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a data set lies, and where its copy shall.

  Attributes:
    folder: of the original, DATA_DIR/NAME/VERSION, local or gs://.
    inner: NAME/VERSION.
    shards: names of the shards that are read.
    stage_dir: local folder for copies.
  """

  folder: str
  inner: str
  shards: frozenset[str]
  stage_dir: str

  @property
  def data_dir(self) -> str:
    """The DATA_DIR of the copy."""
    told = hashlib.blake2b(self.folder.encode(), digest_size=6).hexdigest()
    return os.path.join(self.stage_dir, told)

  @property
  def copy(self) -> str:
    """The folder of the copy."""
    return os.path.join(self.data_dir, self.inner)

  def complete(self) -> bool:
    """Whether a verified copy of every shard is there; asks no bucket."""
    lines = _lines(self.copy)
    return bool(self.shards) and all(
      name in lines and _size(self.copy, name) == lines[name]["size"]
      for name in self.shards
    )


class Staging:
  """Copies what is missing, in threads; `wait` says when that is done.

  Args:
    place: what is copied where.

  Attributes:
    bytes_wanted: of what was missing at the beginning; 0 until that is known.
    bytes_done: of it.
  """

  def __init__(self, place: Place) -> None:
    self.bytes_wanted = self.bytes_done = 0
    self._place = place
    self._begun = time.monotonic()
    self._stopping = threading.Event()
    self._counting = threading.Lock()
    self._ended: queue.Queue[BaseException | None] = queue.Queue()
    # A daemon, so that storage that hangs cannot keep the program from ending.
    threading.Thread(target=self._work, daemon=True, name="staging").start()

  def wait(self, seconds: float) -> bool:
    """Whether the copy is complete, within `seconds`; raises what went wrong.

    Raises:
      UsageError: it does not fit.
      StorageError: the original's storage does not answer.
    """
    try:
      error = self._ended.get(timeout=seconds)
    except queue.Empty:
      return False
    self._ended.put(error)
    if error:
      raise error
    return True

  def stop(self) -> None:
    """Begins no further file or range."""
    self._stopping.set()

  def sentence(self) -> str:
    """Says "12.0 of 148.3 GB copied, 410 MB/s, 333 s left"."""
    if not self.bytes_wanted:
      return "looking for what is missing, or another process copies"
    seconds = time.monotonic() - self._begun
    text = (
      f"{self.bytes_done / 1e9:.1f} of {self.bytes_wanted / 1e9:.1f} GB copied"
    )
    rate = self.bytes_done / seconds
    if rate:
      left = (self.bytes_wanted - self.bytes_done) / rate
      text += f", {rate / 1e6:,.0f} MB/s, {left:,.0f} s left"
    return text

  def _work(self) -> None:
    error: BaseException | None = None
    try:
      os.makedirs(self._place.copy, exist_ok=True)
      while not self._stopping.is_set():
        try:
          with locks.taken(os.path.join(self._place.data_dir, _LOCK)):
            self._copy_missing()
          break
        except locks.TakenError:  # a process of this host copies for all
          self._stopping.wait(0.5)
    except BaseException as caught:  # `wait` raises it
      error = caught
    self._ended.put(error)

  def _copy_missing(self) -> None:
    originals = _originals(self._place)
    lines = _lines(self._place.copy)
    missing = {
      name: file
      for name, file in originals.items()
      if lines.get(name, {}).get("original") != file
      or _size(self._place.copy, name) != file["size"]
    }
    wanted = sum(file["size"] for file in missing.values())
    for name in os.listdir(self._place.copy):
      if name.endswith(copying.PART):  # left by a kill
        os.remove(os.path.join(self._place.copy, name))
    _check_room(self._place, wanted)
    self._begun, self.bytes_wanted = time.monotonic(), wanted
    # Anew, because no line may follow one that a kill has torn.
    kept = [json.dumps(line) + "\n" for line in lines.values()]
    whole_files.write_text(_lines_path(self._place.copy), "".join(kept))
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    # The metadata last: TFDS takes a folder for a data set if it has them.
    for name in sorted(missing, key=lambda name: not _SHARD.fullmatch(name)):
      todo.put(name)

    def copy() -> None:
      while not self._stopping.is_set():
        try:
          name = todo.get_nowait()
        except queue.Empty:
          return
        self._copy_one(name, missing[name])

    _in_threads([copy] * min(_THREADS, len(missing)), self.stop)

  def _copy_one(self, name: str, file: Mapping[str, Any]) -> None:
    """Copies and verifies a file, and writes its line."""
    original = epath.Path(self._place.folder, name)
    target = os.path.join(self._place.copy, name)
    try:
      checksum = copying.copy(original, target, file["size"], self._came)
    except _StoppedError:
      return
    except UnreadableError as error:
      raise UsageError(
        f"{original} cannot be staged: {error}. Restore it, or leave out "
        "loader.stage_dir."
      ) from error
    except OSError as error:
      if not full_disk.problem(error):
        raise
      raise DiskFullError(
        f"loader.stage_dir={self._place.stage_dir} takes no more "
        f"({error.strerror}); make room there, or give another folder."
      ) from error
    line = {"name": name, "size": file["size"], "crc32": f"{checksum:08x}"}
    text = json.dumps({**line, "original": file}) + "\n"
    with self._counting:
      appending.append(_lines_path(self._place.copy), text.encode())

  def _came(self, count: int) -> None:
    with self._counting:
      self.bytes_done += count
    if self._stopping.is_set():
      raise _StoppedError


class _StoppedError(Exception):
  """`Staging.stop` was called."""


def _originals(place: Place) -> dict[str, dict[str, Any]]:
  """Name -> size and time of each file to be copied; asks in parallel."""
  folder = epath.Path(place.folder)
  what = f"the shards in {place.folder}"
  there = retries.patiently(lambda: [x.name for x in folder.iterdir()], what)
  names = [x for x in there if x in place.shards or not _SHARD.fullmatch(x)]
  if absent := sorted(place.shards - set(names)):
    raise UsageError(
      f"{place.folder} should hold {len(place.shards)} shards of the splits "
      f"that are read, but {len(absent)} are absent, such as {absent[0]}. "
      "Copy or prepare it again."
    )
  found: dict[str, dict[str, Any]] = {}

  def ask(some: list[str]) -> None:
    for name in some:
      stat = retries.patiently((folder / name).stat, what)
      if not stat.is_directory:
        found[name] = {"size": stat.length, "time": stat.mtime}

  parts = [names[k::_THREADS] for k in range(_THREADS)]
  _in_threads([lambda part=part: ask(part) for part in parts], lambda: None)
  return found


def _in_threads(works: list[Any], stop: Any) -> None:
  """Calls all at a time; after the first error `stop`, and raises it."""
  errors: list[BaseException] = []

  def run(work: Any) -> None:
    try:
      work()
    except BaseException as error:
      errors.append(error)
      stop()

  threads = [
    threading.Thread(target=run, args=(work,), daemon=True, name="staging")
    for work in works
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  if errors:
    raise errors[0]


def _check_room(place: Place, wanted: int) -> None:
  """Raises UsageError if `wanted` bytes do not fit."""
  try:
    full_disk.check_room(place.stage_dir, wanted and wanted + _SPARE)
  except OSError as error:
    free = shutil.disk_usage(place.stage_dir).free
    raise UsageError(
      f"loader.stage_dir={place.stage_dir} has {free / 1e9:,.1f} GB free, but "
      f"{wanted / 1e9:,.1f} GB of {place.inner} shall be copied there, and "
      f"{_SPARE / 1e9:,.1f} GB stay free. Make room, give a folder on a larger "
      "disk, or leave it out."
    ) from error


def _lines_path(folder: str) -> str:
  return os.path.join(folder, _LINES)


def _lines(folder: str) -> dict[str, dict[str, Any]]:
  """What `staged.jsonl` says of each file; a torn line says nothing."""
  found = {}
  try:
    with open(_lines_path(folder), "rb") as file:
      for text in file:
        try:
          line = json.loads(text)
          found[line["name"]] = line
        except (ValueError, TypeError, KeyError):
          continue
  except FileNotFoundError:
    pass
  return found


def _size(folder: str, name: str) -> int:
  """Bytes of a local file; -1 if it is absent."""
  try:
    return os.path.getsize(os.path.join(folder, name))
  except FileNotFoundError:
    return -1
