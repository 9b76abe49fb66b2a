"""Files of features: contents, owners, and the memory that writing takes."""

import io
import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from byol_flax.evaluation import feature_files, image_ids
from input_pipeline import folders, sources
from input_pipeline.errors import UsageError

ENDINGS = (".npz", ".parquet")


class Pieces:
  """Rows that are made when they are asked for."""

  def __init__(self, count, width, rows):
    self.count, self.width, self.rows = count, width, rows

  def read(self, name):
    for start in range(0, self.count, self.rows):
      number = np.arange(start, min(start + self.rows, self.count))
      yield {
        "number": number,
        "label": (number % 4 - 1).astype(np.int32),
        "representation": np.repeat(number[:, None], self.width, axis=1).astype(
          np.float32
        ),
      }[name]


def table(count=10, width=3, rows=4, piece_rows=5):
  return feature_files.Table(
    pieces=Pieces(count, width, rows),
    count=count,
    width=width,
    piece_rows=piece_rows,
    ids=lambda numbers: [f"é/{i}.png" for i in numbers],
    class_names=("cat", "dog", "eel"),
    metadata={"code_version": "c0de"},
  )


def test_both_formats_hold_the_same(tmp_path):
  paths = [str(tmp_path / f"a{ending}") for ending in ENDINGS]
  for path in paths:
    feature_files.write(path, table())
    assert feature_files.metadata_of(path) == {"code_version": "c0de"}
  with np.load(paths[0], allow_pickle=False) as arrays:
    found = dict(arrays)
  assert {name: (x.shape, x.dtype.str) for name, x in found.items()} == {
    "representation": ((10, 3), "<f4"),
    "label": ((10,), "<i4"),
    "id": ((10,), "<U7"),
    "metadata": ((), "<U24"),
  }
  assert found["id"].tolist() == [f"é/{i}.png" for i in range(10)]
  assert found["label"].tolist() == [-1, 0, 1, 2, -1, 0, 1, 2, -1, 0]
  np.testing.assert_array_equal(found["representation"][:, 2], np.arange(10))
  columns = parquet.read_table(paths[1])
  assert columns.schema.field("representation").type == pa.list_(
    pa.float32(), 3
  )
  assert columns["id"].to_pylist() == found["id"].tolist()
  assert columns["label"].to_pylist() == [None, 0, 1, 2] * 2 + [None, 0]
  names = [None, "cat", "dog", "eel"]
  assert columns["class"].to_pylist() == names * 2 + names[:2]
  np.testing.assert_array_equal(
    np.stack(columns["representation"].to_numpy()), found["representation"]
  )


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_rows_in_other_pieces_are_the_same_file(tmp_path, ending):
  written = []
  for rows in (1, 4, 5, 7, 10):
    path = tmp_path / f"{rows}{ending}"
    feature_files.write(str(path), table(rows=rows))
    written.append(path.read_bytes())
  assert set(written) == {written[0]}


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, ending):
  """Of representations of 64 MiB, in pieces of 1 MiB."""
  large = table(count=65_536, width=256, rows=1024, piece_rows=1024)
  pool = pa.default_memory_pool()
  before = pool.bytes_allocated()
  tracemalloc.start()
  try:
    feature_files.write(str(tmp_path / f"a{ending}"), large)
    assert tracemalloc.get_traced_memory()[1] < 12 * 2**20
  finally:
    tracemalloc.stop()
  assert (tmp_path / f"a{ending}").stat().st_size > 2**19
  assert pool.max_memory() - before < 32 * 2**20


@pytest.mark.parametrize("ending", ENDINGS)
def test_only_our_own_file_is_written_over(tmp_path, ending):
  path = tmp_path / f"a{ending}"
  feature_files.check(str(path))
  feature_files.write(str(path), table())
  feature_files.check(str(path))
  theirs = io.BytesIO()
  if ending == ".npz":
    np.savez(theirs, metadata=np.array(json.dumps({"other": 1})))
  else:
    parquet.write_table(pa.table({"a": [1]}), theirs)
  for data in (theirs.getvalue(), b"", path.read_bytes()[:-30]):
    path.write_bytes(data)
    with pytest.raises(UsageError, match="was not written by byol"):
      feature_files.check(str(path))
    assert path.read_bytes() == data


def test_where_no_file_can_be_written_is_told(tmp_path):
  for path, told in (
    ("a.csv", r"a\.csv should end in one of \.parquet, \.npz"),
    ("a", "should end in one of"),
    ("no/a.npz", "there is no folder"),
    ("dir.npz", "it is a folder"),
  ):
    (tmp_path / "dir.npz").mkdir(exist_ok=True)
    with pytest.raises(UsageError, match=told):
      feature_files.check(str(tmp_path / path))


def test_ids_of_sets_with_and_without_files(tmp_path):
  digits = sources.open_source("digits", "test[100:]")
  part = sources.Part(digits, digits.split, range(5, 9))
  assert image_ids.of_images(part, np.array([0, 3])) == ["test/105", "test/108"]
  (tmp_path / "train" / "b").mkdir(parents=True)
  for name in (b"train/b/2.png", b"train/\xe4.png"):
    (tmp_path / name.decode(errors="surrogateescape")).write_bytes(b"")
  name = f"folder:{tmp_path}"
  for split, ids in (
    ("train", ["train/b/2.png", "train/\\xe4.png"]),
    ("all", ["train/b/2.png", "train/\\xe4.png"]),
  ):
    source = folders.open_folder(name, str(tmp_path), split, labelled=True)
    assert image_ids.of_images(source, range(2)) == ids
