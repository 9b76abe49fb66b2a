"""Zip archives are read as parts of a file, and believed in nothing."""

import struct
import zipfile

import pytest

from byol_flax.weights import stored_zip
from byol_flax.weights.errors import WeightsError
from tests.weights import torch_made

NAMED = [("a/one", b"1" * 100), ("a/two", b"2" * 50)]


def entries(path):
  with open(path, "rb") as file:
    return stored_zip.entries(file)


def put(tmp_path, data):
  path = tmp_path / "a.zip"
  path.write_bytes(data)
  return str(path)


def test_entries_lie_where_they_are_said_to(tmp_path):
  path = put(tmp_path, torch_made.zipped(NAMED))
  found = entries(path)
  assert list(found) == ["a/one", "a/two"]
  with open(path, "rb") as file:
    for name, data in NAMED:
      assert stored_zip.content(file, found[name], 100) == data
      memory = bytearray(len(data) - 10)
      stored_zip.fill(memoryview(memory), file, found[name], skipped=10)
      assert memory == data[10:]
    with pytest.raises(WeightsError, match="expected at most 99"):
      stored_zip.content(file, found["a/one"], 99)


def test_a_table_of_gigabytes_is_not_read(tmp_path):
  """Nearly all of the file is a hole, which takes no room on a disk."""
  path, at = tmp_path / "a.zip", 20 << 30
  with open(path, "wb") as file:
    file.write(stored_zip.BEGINNING)
    file.seek(at)
    record = (b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, at - 1000, 1000)
    file.write(struct.pack("<4sQHHLLQQQQ", *record))
    file.write(struct.pack("<4sLQL", b"PK\6\7", 0, at, 1))
    most = 2**32 - 1
    end = (b"PK\5\6", 0, 0, 65535, 65535, most, most, 0)
    file.write(struct.pack("<4s4H2LH", *end))
  with pytest.raises(WeightsError, match="Its table of entries has 21,474"):
    entries(path)


def test_entries_that_share_bytes_are_refused(tmp_path):
  """A small archive could be any size otherwise."""
  data = bytearray(torch_made.zipped(NAMED))
  second = data.rindex(b"PK\1\2")
  data[second + 42 : second + 46] = struct.pack("<I", 0)  # where it begins
  with pytest.raises(WeightsError, match="lies within another one"):
    entries(put(tmp_path, bytes(data)))


def test_compressed_entries_are_refused(tmp_path):
  data = torch_made.zipped(NAMED, compression=zipfile.ZIP_DEFLATED)
  with pytest.raises(WeightsError, match="a/one is compressed"):
    entries(put(tmp_path, data))


@pytest.mark.parametrize("name", ["\x1b[31mred", "x" * 501])
def test_names_fit_for_no_message_are_refused(tmp_path, name):
  path = put(tmp_path, torch_made.zipped([(name, b"")]))
  with pytest.raises(WeightsError, match="no plain text") as told:
    entries(path)
  assert str(told.value).isprintable()
