"""Examples in ArrayRecord files, as TFDS writes and reads them.

An example is a tf.train.Example, a map from names to lists of bytes or of whole
numbers. It is encoded here, because protocol buffers do not promise the order
of a map, and equal data shall give equal files.
"""

import os
from collections.abc import Iterable, Mapping

from array_record.python import array_record_module

from input_pipeline import full_disk, whole_files
from input_pipeline.errors import RunError

Value = bytes | int


def encode(example: Mapping[str, Value]) -> bytes:
  """A tf.train.Example with one value under each name, names in order."""
  return _field(
    1, b"".join(_entry(name, example[name]) for name in sorted(example))
  )


def write(path: str, records: Iterable[bytes]) -> int:
  """Writes an ArrayRecord file, whole or not at all; returns its bytes.

  RunError if it cannot be written, and what `full_disk` knows if there is no
  room for it.

  One record a group, for random access, and uncompressed: images are already.
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
    # RunErrors are ours, of reading the images; all others are ArrayRecord's.
    if isinstance(error, RunError) or full_disk.problem(error):
      raise
    raise RunError(f"Cannot write {path}: {error}") from None
  return os.path.getsize(path)


def _entry(name: str, value: Value) -> bytes:
  """Features.feature is a map: entries of key 1 and value 2."""
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
  """Seven bits at a time, the lowest first."""
  out = bytearray()
  while value > 127:
    out.append(value & 127 | 128)
    value >>= 7
  out.append(value)
  return bytes(out)
