"""Counts and names the images that cannot be read, up to a share of all.

A run names them in `unreadable-<process>.txt` in its workdir, one a line:
position, bytes of the file when the run began ("-" for a record of a larger
file), and name within the split, with tabs between. From these a resumed run
can tell whether only such images were mended or removed since. Lines of format
1 have no bytes.
"""

import concurrent.futures
import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from etils import epath

from input_pipeline import appending, sources
from input_pipeline.errors import UsageError

FILES = "unreadable-*.txt"
_THREADS = 8  # look again at what was unreadable


class Line(NamedTuple):
  """An image that could not be read; `size` is None if it is not known."""

  position: int
  size: int | None
  name: str


def lines_of(workdir: str) -> list[Line]:
  """What all processes of a run have found so far."""
  reports = epath.Path(workdir).glob(FILES)
  return [line for report in reports for line in read(report)]


def began_with(lines: Iterable[Line]) -> dict[str, int]:
  """Names of files -> bytes when the run began; see `sources.open_source`."""
  return {line.name: line.size for line in lines if line.size is not None}


def read(report: epath.Path) -> list[Line]:
  """The lines of one file; none if it is absent."""
  if not report.is_file():
    return []
  lines = []
  for text in (
    report.read_bytes().decode("utf-8", "surrogateescape").split("\n")
  ):
    index, _, rest = text.partition("\t")
    size, tab, name = rest.partition("\t")
    if index.isdigit():
      known = bool(tab) and size.isdigit()
      lines.append(Line(int(index), int(size) if known else None, name))
  return lines


class UnreadableImages:
  """Counts and names the images that could not be read.

  Attributes:
    report: text file with one line per image, see above.
    indices: of the images found so far, including those that earlier starts
      found and that still cannot be read.
    changes: sentences about what earlier starts found: what was mended or
      removed since, and what is left.
  """

  def __init__(
    self,
    source: sources.ReadableSource,
    report: str,
    max_share: float,
    earlier: Iterable[Line] = (),
    share_key: str = "loader.max_unreadable_share",
    may_be_removed: bool = True,
  ) -> None:
    """Looks again at what `earlier` starts found.

    `share_key` of the config holds `max_share`, and `may_be_removed` says
    whether images that are removed keep their places.

    Raises:
      UsageError: more than `max_share` of all images, in [0, 1], are still
        unreadable; those that were removed do not count.
    """
    self._source = source
    self._max_share, self._share_key = max_share, share_key
    self._may_be_removed = may_be_removed
    self.report = epath.Path(report)
    listed = sorted({x.position for x in earlier if x.position < len(source)})
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
      readable = list(threads.map(source.readable, listed))
    self.indices = {
      i for i, mended in zip(listed, readable, strict=True) if not mended
    }
    self.changes = _changes(source, sum(readable), self.indices)
    if self.indices:
      self.changes.append(self.sentence())
    named = read(self.report)
    complete = {line.position for line in named if line.size is not None}
    self._write(self.indices - complete)
    self._check()

  def sentence(self) -> str:
    """Says how many there are, and where to find their names."""
    return (
      f"{len(self.indices)} image(s) could not be read; their names are in "
      f"{self.report}"
    )

  def see(self, unreadable: np.ndarray) -> None:
    """Takes a batch's "unreadable" [B] int64: index of an image, or -1.

    Raises:
      UsageError: more than the allowed share could not be read.
    """
    found = {int(i) for i in unreadable[unreadable >= 0]} - self.indices
    if found:
      self._write(found)
      self.indices |= found
      self._check()

  @contextlib.contextmanager
  def watching(self) -> Iterator[None]:
    """If reading ends within the block, names the images that ended it."""
    try:
      yield
    except sources.NoneReadableError as error:
      self._write(set(error.indices) - self.indices)
      raise

  def _write(self, indices: set[int]) -> None:
    write(self.report, self._source, indices)

  def _check(self) -> None:
    found = too_many(self._source, self.indices, self._max_share)
    if not found:
      return
    raise UsageError(
      f"{len(found)} of {len(self._source)} images could not be read, more "
      f"than the allowed share of {self._max_share:g}; their names are in "
      f"{self.report}. "
      + way_out(self._source, self._share_key, self._may_be_removed)
    )


def write(
  report: epath.Path,
  source: sources.ReadableSource | sources.Source,
  indices: Iterable[int],
) -> None:
  """Appends a line about each of these images."""
  text = ""
  for index in sorted(indices):
    file = source.file_of(index)
    # A name of two lines could not be read back, so its size is not recorded.
    size = file[1] if file and "\n" not in file[0] else "-"
    text += f"{index}\t{size}\t{name_of(source, index)}\n"
  if text:
    appending.append(report, text.encode("utf-8", "surrogateescape"))


def is_gone(
  source: sources.ReadableSource | sources.Source, index: int
) -> bool:
  """Whether somebody removed the file of an image."""
  return source.file_of(index) is not None and not os.path.exists(
    source.example_name(index)
  )


def too_many(
  source: sources.ReadableSource | sources.Source,
  indices: Collection[int],
  max_share: float,
) -> list[int]:
  """Those of unreadable images that still exist, if they exceed the share.

  Whoever removed an image does without it, so that it does not count.
  """
  most = max_share * len(source)
  if len(indices) <= most:  # without a look at each file
    return []
  found = [i for i in indices if not is_gone(source, i)]
  return found if len(found) > most else []


def name_of(source: sources.ReadableSource | sources.Source, index: int) -> str:
  """What a list calls an image."""
  name, _ = source.file_of(index) or (source.example_name(index), None)
  return name.replace("\n", "\\n")


def way_out(
  source: sources.ReadableSource | sources.Source,
  share_key: str,
  may_be_removed: bool,
) -> str:
  """What to do if too many images are unreadable, in a sentence."""
  if not source.file_of(0):
    return (
      f"Raise {share_key} and give the command again; or restore the files of "
      "the set, or prepare it anew for a new run."
    )
  remove = "remove them, " if may_be_removed else ""
  return (
    f"Mend them in their places, {remove}or raise {share_key}, and give the "
    "command again."
  )


def _changes(
  source: sources.ReadableSource, mended: int, unreadable: Iterable[int]
) -> list[str]:
  removed = sum(is_gone(source, i) for i in unreadable)
  changes = []
  if mended:
    changes.append(
      f"{mended} image(s) that could not be read can be read now; from here on "
      "they take their own places again."
    )
  if removed:
    changes.append(
      f"{removed} image(s) that could not be read are gone; their neighbours "
      "go on standing in for them."
    )
  return changes
