"""Records that lie together come from a bucket by one request."""

import pickle
import threading

import cv2
import numpy as np
import pytest
from array_record.python import array_record_module
from array_record.python.array_record_data_source import ArrayRecordDataSource

from input_pipeline import augment, pipeline, read_ahead, subsets
from input_pipeline.parts import Part
from input_pipeline.read_ahead import ReadAhead, Shard
from input_pipeline.sources import ReadableSource
from input_pipeline.tfds_sources import TfdsSource
from tests.fake_bucket import WHERE, Bucket

MIB = 2**20
_LENGTHS = (50, 7, 93)  # records of the shards


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
  """A bucket with three shards; a record is a label and a PNG."""
  folder = tmp_path_factory.mktemp("bucket")
  rng = np.random.default_rng(0)
  written = []
  for shard, length in enumerate(_LENGTHS):
    writer = array_record_module.ArrayRecordWriter(
      str(folder / f"shard{shard}"), "group_size:1,uncompressed"
    )
    for _ in range(length):
      sides = rng.integers(9, 40, 2)
      image = rng.integers(0, 256, (*sides, 3), np.uint8)
      png = cv2.imencode(".png", image)[1].tobytes()
      written.append(bytes([len(written)]) + png)
      writer.write(written[-1])
    writer.close()
  bucket = Bucket(folder)
  bucket.folder, bucket.written = folder, written
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv(WHERE, bucket.address)
    yield bucket
  bucket.close()


def decode(record):
  return {"image": record[1:], "label": record[0]}


class Decoded:
  """Records one at a time, each by a request of its own."""

  def __init__(self, shards):
    self.source = ArrayRecordDataSource(
      [f"{s.path}[{s.skip}:{s.skip + s.take}]" for s in shards]
    )

  def __len__(self):
    return len(self.source)

  def __getitem__(self, i):
    return decode(self.source[i])


def records_of(bucket, *, most=16, first=0):
  """All records from `first` on; a request brings at most `most`."""
  takes = list(_LENGTHS)
  takes[0] -= first
  skips = (first, 0, 0)
  shards = [
    Shard(f"gs://bucket/shard{k}", skip, take)
    for k, (skip, take) in enumerate(zip(skips, takes, strict=True))
  ]
  record_bytes = read_ahead._REQUEST_BYTES // most
  return ReadAhead(Decoded(shards), shards, decode, record_bytes)


def source_of(records):
  return TfdsSource(
    "made_up",
    "train",
    records,
    image_key="image",
    label_key="label",
    class_names=[str(k) for k in range(sum(_LENGTHS))],
    fingerprint="x",
    folder="gs://bucket",
    several=0,
  )


def pieces(numbers, records):
  records.ahead(numbers)
  return [(p.start, p.stop) for p in records._mine.announced]


def test_ranges_end_with_shards_gaps_and_sizes(bucket):
  records = records_of(bucket, most=20, first=10)  # shards 0-39, 40-46, 47-139
  cut = pieces(range(5, 80), records)
  assert cut == [(5, 25), (25, 40), (40, 47), (47, 67), (67, 80)]
  cut = pieces([3, 4, 9, 8, 38, 39, 40, 41, 139], records)
  assert cut == [(3, 5), (9, 10), (8, 9), (38, 40), (40, 42), (139, 140)]
  assert pieces([], records) == []
  assert pieces(np.arange(3), records) == [(0, 3)]


@pytest.mark.parametrize("numbers", [range(140), [*range(30, 45), 99, 3, 4, 5]])
def test_each_comes_once_in_order_as_it_was_written(bucket, numbers):
  records = records_of(bucket, most=20, first=10)
  expected = len(pieces(numbers, records))
  opened = len({np.searchsorted([40, 47], i, "right") for i in numbers})
  before = len(bucket.requests)
  for i in numbers:
    assert records[i] == decode(bucket.written[10 + i])
  assert len(bucket.requests) - before == expected + opened
  assert records._mine.held == {}


def test_what_was_not_announced_comes_too(bucket):
  records = records_of(bucket)
  records.ahead(range(20, 40))
  for i in (3, 20, 149, 22, 21, 20, 39):
    assert records[i] == decode(bucket.written[i])


def test_threads_and_copies_do_not_share_what_they_announced(bucket):
  records = records_of(bucket)
  records.ahead(range(16))
  assert records[0]
  copy = pickle.loads(pickle.dumps(records))
  assert not copy._open
  assert not copy._mine.announced
  found = []

  def other():
    records.ahead(range(60, 70))
    found.extend(records[i] for i in range(60, 70))

  thread = threading.Thread(target=other)
  thread.start()
  thread.join()
  before = len(bucket.requests)
  assert [records[i] for i in range(1, 16)] == [
    decode(record) for record in bucket.written[1:16]
  ]
  assert len(bucket.requests) == before
  assert found == [decode(record) for record in bucket.written[60:70]]
  assert copy[4] == decode(bucket.written[4])


def test_few_files_stay_open(bucket, monkeypatch):
  monkeypatch.setattr(read_ahead, "_OPEN_SHARDS", 2)
  records = records_of(bucket)
  records.ahead(range(150))
  assert [records[i] for i in range(150)] == [
    decode(record) for record in bucket.written
  ]
  assert [*records._open] == ["gs://bucket/shard1", "gs://bucket/shard2"]


def test_a_damaged_record_costs_itself_only(bucket, tmp_path):
  """Its neighbours of the same request are read, each alone."""
  data = bytearray((bucket.folder / "shard0").read_bytes())
  at = data.index(bucket.written[9]) + len(bucket.written[9]) // 2
  data[at] ^= 255
  path = tmp_path / "shard"
  path.write_bytes(data)
  shards = [Shard(str(path), 0, 50)]
  source = ReadableSource(
    source_of(ReadAhead(Decoded(shards), shards, decode, MIB)), delays=()
  )
  source.ahead(range(50))
  found = [source[i] for i in range(50)]
  assert [e["unreadable"] for e in found] == [-1] * 9 + [9] + [-1] * 40
  assert [int(e["label"]) for e in found] == [*range(9), 10, *range(10, 50)]


def reader(batch_size, **changes):
  return pipeline.EvalReader(
    transform=augment.EvalCrop(size=8, ratio=1.0),
    batch_size=batch_size,
    num_workers=0,
    num_threads=2,
    process_index=0,
    process_count=1,
    **changes,
  )


@pytest.mark.parametrize("part", [False, True])
def test_an_evaluation_asks_seldom(bucket, part):
  source = source_of(records_of(bucket, most=1000))
  numbers = np.r_[0:31, 57:150] if part else range(150)
  split = Part(source, "some", numbers)
  how = reader(32)
  before = len(bucket.requests)
  batches = [*how.read(split)]
  label = np.concatenate([batch["label"][batch["mask"]] for batch in batches])
  np.testing.assert_array_equal(label, numbers)
  chunks = -(-len(numbers) // how.how(split).chunk_rows)
  assert chunks < 40
  # A chunk may begin in one shard and end in another; each is opened once.
  assert len(bucket.requests) - before <= chunks + 2 + 3


def test_labels_and_names_are_read_in_blocks(bucket):
  source = source_of(records_of(bucket, most=1000))
  before = len(bucket.requests)
  np.testing.assert_array_equal(subsets.labels_of(source), np.arange(150))
  names = subsets.names_of(Part(source, "end", range(100, 150)))
  assert names == [f"made_up train record {i}" for i in range(100, 150)]
  # 5 and 1 ranges, for 64 numbers at most and one shard, and 3 openings.
  assert len(bucket.requests) - before == 5 + 1 + 3


def test_two_sources_one_after_the_other(bucket):
  both = subsets.Joined(
    source_of(records_of(bucket, most=1000)),
    Part(source_of(records_of(bucket, most=1000)), "x", range(7, 30)),
  )
  both.ahead(range(140, 170))
  before = len(bucket.requests)
  found = [int(both[i]["label"]) for i in range(140, 170)]
  assert found == [*range(140, 150), *range(7, 27)]
  assert len(bucket.requests) - before == 2 + 2
