"""Reads records that lie together by one request.

A bucket answers a request after tens of milliseconds, however little is asked
for, and counts requests. Training draws its images from anywhere, so each takes
a request of its own. Whoever reads in order says which examples come next
(`parts.Source.ahead`), and then one request brings megabytes of them.
"""

import bisect
import contextlib
import dataclasses
import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from array_record.python import array_record_module

_REQUEST_BYTES = 8 * 2**20  # so much on the average; a thread holds one
_UNKNOWN_BYTES = 128 * 2**10  # of a record, where nobody has counted
# Records of one request may be larger than the average of all; up to here they
# still come by one.
_LARGEST_REQUEST = 16 * 2**20
_OPEN_SHARDS = 8  # of one split in each process; opening one takes a request


@dataclasses.dataclass(frozen=True)
class Shard:
  """Consecutive records of one ArrayRecord file.

  Attributes:
    path: of the file, local or gs://.
    skip: how many of its records come before them.
    take: how many they are.
  """

  path: str
  skip: int
  take: int


class ReadAhead:
  """Records by number; those that were announced come many at a time.

  It opens nothing before a record is asked for, so that it can be sent to a
  worker process.
  """

  def __init__(
    self,
    records: Sequence[Any],
    shards: Sequence[Shard],
    decode: Callable[[bytes], Any],
    record_bytes: int,
  ) -> None:
    """Takes the same records twice.

    Args:
      records: read one at a time.
      shards: of the files that hold them, in order.
      decode: makes of the bytes of a record what `records` gives.
      record_bytes: of an average record; 0 if nobody knows.
    """
    self._how = records, shards, decode, record_bytes
    self._records = records
    self._shards = shards
    self._decode = decode
    self._most = max(1, _REQUEST_BYTES // (record_bytes or _UNKNOWN_BYTES))
    self._ends = [*itertools.accumulate(shard.take for shard in shards)]
    self._mine = _OfThread()
    self._open: OrderedDict[str, Any] = OrderedDict()
    self._lock = threading.Lock()

  def __reduce__(self) -> Any:
    """Leaves out what is open and what was announced."""
    return ReadAhead, self._how

  def __len__(self) -> int:
    return len(self._records)

  def ahead(self, numbers: Sequence[int] | np.ndarray) -> None:
    """Says what this thread asks for next, in this order; see `Source`."""
    self._mine.announced = deque(self._pieces(numbers))
    self._mine.held = {}

  def __getitem__(self, i: int) -> Any:
    mine = self._mine
    if mine.announced and mine.announced[0].start == i:
      mine.held = self._request(mine.announced.popleft())
    record = mine.held.pop(i, None)
    return self._records[i] if record is None else self._decode(record)

  def _pieces(self, numbers: Sequence[int] | np.ndarray) -> list[range]:
    """Cuts them into ranges that one request brings."""
    pieces: list[range] = []
    end = 0  # of the shard that the last piece lies in
    for i in map(int, numbers):
      last = pieces[-1] if pieces else range(0)
      if last and last.stop == i < end and len(last) < self._most:
        pieces[-1] = range(last.start, i + 1)
      else:
        pieces.append(range(i, i + 1))
        end = self._ends[bisect.bisect_right(self._ends, i)]
    return pieces

  def _request(self, piece: range) -> dict[int, bytes]:
    """The bytes of some records; none if the request fails.

    Each is then asked for alone, which tells whose fault it is, is tried again
    and brings what is sound.
    """
    number = bisect.bisect_right(self._ends, piece.start)
    shard = self._shards[number]
    offset = shard.skip - (self._ends[number] - shard.take)
    with contextlib.suppress(Exception):
      reader = self._reader(shard.path)
      found = reader.read(piece.start + offset, piece.stop + offset)
      return dict(zip(piece, found, strict=True))
    return {}

  def _reader(self, path: str) -> Any:
    """The open file, which threads share."""
    with self._lock:
      reader = self._open.pop(path, None)
      if reader is None:
        reader = array_record_module.ArrayRecordReader(
          path,
          options=f"readahead_buffer_size:{_LARGEST_REQUEST},max_parallelism:1",
          file_reader_buffer_size=32768,
        )
      self._open[path] = reader
      if len(self._open) > _OPEN_SHARDS:
        self._open.popitem(last=False)
      return reader


class _OfThread(threading.local):
  """What a thread has announced, and the bytes of what came of it."""

  def __init__(self) -> None:
    self.announced: deque[range] = deque()
    self.held: dict[int, bytes] = {}
