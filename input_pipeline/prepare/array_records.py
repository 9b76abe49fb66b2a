"""Writes examples to ArrayRecord files, as TFDS writes and reads them.

An example is a tf.train.Example, a map from names to lists of bytes or of whole
numbers. It is encoded here because equal data must give equal files, and
protocol buffers do not promise the order of a map.
"""

import os
from collections.abc import Iterable, Mapping

from array_record.python import array_record_module

from input_pipeline import full_disk, whole_files
from input_pipeline.errors import RunError

Value = bytes | int


def encode(example: Mapping[str, Value]) -> bytes:
  """Encodes a tf.train.Example with one value a name, in order of the names."""
  return _field(
    1, b"".join(_entry(name, example[name]) for name in sorted(example))
  )


def write(path: str, records: Iterable[bytes]) -> int:
  """Writes an ArrayRecord file, whole or not at all; returns its bytes.

  A group has one record, for random access. Nothing is compressed, because
  images are already.

  Raises:
    RunError: it cannot be written. If the disk is full, the error is one that
      `full_disk.problem` knows.
  """
  try:
    with whole_files.replacing(path) as temporary:
      writer = array_record_module.ArrayRecordWriter(
        str(temporary), "group_size:1,uncompressed"
      )
      for record in records:
        writer.write(record)
      writer.close()
  except RuntimeError as error:
    # A RunError comes from reading the images; all others from ArrayRecord.
    if isinstance(error, RunError) or full_disk.problem(error):
      raise
    raise RunError(f"Cannot write {path}: {error}") from None
  return os.path.getsize(path)


def _entry(name: str, value: Value) -> bytes:
  """An entry of the map Features.feature; field 1 is its key, 2 its value."""
  if isinstance(value, bytes):
    feature = _field(1, _field(1, value))  # Feature.bytes_list, its value
  else:
    # Feature.int64_list, packed. Negative numbers are 64 bits long.
    feature = _field(3, _field(1, _varint(value % 2**64)))
  return _field(1, _field(1, name.encode()) + _field(2, feature))


def _field(number: int, content: bytes) -> bytes:
  """A field of length-delimited content."""
  return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
  """Encodes a whole number, seven bits at a time, the lowest first."""
  out = bytearray()
  while value > 127:
    out.append(value & 127 | 128)
    value >>= 7
  out.append(value)
  return bytes(out)
