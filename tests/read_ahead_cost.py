"""What reading ahead costs on a local disk and saves in a bucket.

python -m tests.read_ahead_cost

It writes 60 MB of records of two sizes to a temporary folder, and prints for
each the time of reading all in order, one at a time and announced, and how many
requests either takes of a bucket on this machine.
"""

import os
import pathlib
import tempfile
import time
from collections.abc import Callable

from array_record.python import array_record_module
from array_record.python.array_record_data_source import ArrayRecordDataSource

from input_pipeline.read_ahead import ReadAhead, Shard
from tests.fake_bucket import WHERE, Bucket

_BLOCK = 64  # records that are announced at a time


def main():
  with tempfile.TemporaryDirectory() as folder:
    bucket = Bucket(pathlib.Path(folder))
    os.environ[WHERE] = bucket.address
    for size, count in ((2_000, 10_000), (110_000, 400)):
      name = f"records{size}"
      write(f"{folder}/{name}", size, count)
      seconds = [
        min(timed(read, f"{folder}/{name}", size, count) for _ in range(3))
        for read in (singly, announced)
      ]
      requests = []
      for read in (singly, announced):
        before = len(bucket.requests)
        read(f"gs://bucket/{name}", size, 4 * _BLOCK)
        requests.append(len(bucket.requests) - before)
      print(
        f"{count:,} records of {size:,} bytes: {seconds[0]:.3f} s singly, "
        f"{seconds[1] / seconds[0]:.2f} times that announced; "
        f"{4 * _BLOCK} of them in a bucket: {requests[0]} and {requests[1]} "
        "requests"
      )
    bucket.close()


def write(path: str, size: int, count: int) -> None:
  writer = array_record_module.ArrayRecordWriter(
    path, "group_size:1,uncompressed"
  )
  for _ in range(count):
    writer.write(os.urandom(size))
  writer.close()


def singly(path: str, size: int, count: int) -> None:
  del size
  records = ArrayRecordDataSource([f"{path}[0:{count}]"])
  for i in range(count):
    assert records[i]


def announced(path: str, size: int, count: int) -> None:
  records = ReadAhead(
    ArrayRecordDataSource([f"{path}[0:{count}]"]),
    [Shard(path, 0, count)],
    bytes,
    size,
  )
  for start in range(0, count, _BLOCK):
    numbers = range(start, min(start + _BLOCK, count))
    records.ahead(numbers)
    assert all(records[i] for i in numbers)


def timed(read: Callable[..., None], *arguments: object) -> float:
  began = time.perf_counter()
  read(*arguments)
  return time.perf_counter() - began


if __name__ == "__main__":
  main()
