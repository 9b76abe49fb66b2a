"""What a pickle is read from: a file of which little comes into memory."""

import codecs
import dataclasses
import os
import struct
from typing import Any, BinaryIO, Final

import numpy as np

from byol_flax.weights.errors import WeightsError

_MAX_LINE: Final = 4 << 10  # bytes, of protocol 0
_MAX_IN_MEMORY: Final = 1_024  # bytes of one text; longer ones become a Blob
_MAX_HELD: Final = 64 << 20  # bytes of all texts in memory
_CHUNK: Final = 1 << 20  # bytes that are decoded at a time


@dataclasses.dataclass(frozen=True)
class Blob:
  """A long text or long bytes that were left in the file.

  Attributes:
    offset: of the first byte, from the beginning of the file.
    length: in bytes.
    kind: "bytes", or "text", which is UTF-8.
  """

  offset: int
  length: int
  kind: str


class Input:
  """The file, from which nothing is taken before it is known to be there."""

  def __init__(self, file: BinaryIO) -> None:
    self._file = file
    self._position = file.tell()
    self._size = file.seek(0, os.SEEK_END)
    self._held = 0
    file.seek(self._position)

  def take(self, length: int) -> bytes:
    """The next `length` bytes; they have to be few."""
    self.check(length)
    taken = self._file.read(length)
    if len(taken) != length:
      raise WeightsError("The file became shorter while it was read.")
    self._position += length
    return taken

  def check(self, length: int) -> None:
    """Raises WeightsError if fewer than `length` bytes are left."""
    left = self._size - self._position
    if not 0 <= length <= left:
      raise WeightsError(
        f"It ends early: it announces {length} bytes at byte {self._position}, "
        f"where {left} are left."
      )

  def number(self, layout: str) -> Any:
    """The next number, in a layout of `struct`."""
    return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

  def line(self) -> bytes:
    """The next line, without its end."""
    line = self._file.readline(_MAX_LINE)
    if not line.endswith(b"\n"):
      raise WeightsError(
        f"A line at byte {self._position} has no end within {_MAX_LINE} bytes."
      )
    self._position += len(line)
    self._hold(len(line))
    return line[:-1]

  def content(self, length: int, kind: str) -> bytes | Blob:
    """The next `length` bytes, which are left in the file if they are many."""
    self.check(length)
    if length <= _MAX_IN_MEMORY:
      self._hold(length)
      return self.take(length)
    blob = Blob(self._position, length, kind)
    self._position = self._file.seek(length, os.SEEK_CUR)
    return blob

  def _hold(self, length: int) -> None:
    self._held += length
    if self._held > _MAX_HELD:
      raise WeightsError(
        f"Its names and short texts are more than {_MAX_HELD >> 20} MiB."
      )


def decoded(content: bytes, encoding: str) -> str:
  """The text that bytes of the file are."""
  try:
    return content.decode(encoding)
  except UnicodeError:
    raise WeightsError(f"It has a text that is no {encoding}.") from None


def shown(text: str) -> str:
  """A name from a file, fit for a message: short, and without controls."""
  text = text if len(text) <= 110 else f"{text[:110]}…"
  return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def fill(out: np.ndarray, file: BinaryIO, blob: Blob) -> None:
  """Reads a blob into memory that is there, a piece at a time.

  Args:
    out: uint8 [N], written.
    file: which the blob is in.
    blob: N bytes; or, of kind "text", N characters below 256, which are bytes
      that Python 3 wrote as a text for readers of Python 2.

  Raises:
    WeightsError: the blob is not N bytes, or there are other characters.
  """
  file.seek(blob.offset)
  decoder = codecs.getincrementaldecoder("utf-8")()
  read = written = 0
  while read < blob.length:
    piece = file.read(min(_CHUNK, blob.length - read))
    read += len(piece)
    if not piece:
      raise WeightsError("The file became shorter while it was read.")
    if blob.kind == "text":
      try:
        text = decoder.decode(piece, final=read == blob.length)
        piece = text.encode("latin-1")
      except UnicodeError:
        raise WeightsError("Bytes of an array are spelled wrongly.") from None
    end = written + len(piece)
    if end > out.size:
      break
    out[written:end] = np.frombuffer(piece, np.uint8)
    written = end
  if written != out.size or read != blob.length:
    raise WeightsError(
      f"An array of {out.size} bytes has a content of another length."
    )
