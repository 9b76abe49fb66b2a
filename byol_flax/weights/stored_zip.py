"""Zip archives as NumPy and PyTorch write them: every entry lies in one piece.

Python's zipfile reads the table of entries. What it says is checked here, as
the file may be anybody's; then entries are read as parts of the file itself.
"""

import dataclasses
import posixpath
import struct
import zipfile
import zlib
from typing import Any, BinaryIO, Final

from byol_flax.weights.arrays import check_name
from byol_flax.weights.errors import WeightsError

BEGINNING: Final = b"PK\x03\x04"
# How an entry begins: signature, and the lengths of its name and extra.
LOCAL: Final = struct.Struct("<4s22xHH")
_MOST_OF_TABLE: Final = 16 << 20  # bytes, for 100,000 entries
_CHUNK: Final = 1 << 20  # bytes
# What zipfile raises on damaged archives.
_DAMAGE: Final = (
  zipfile.BadZipFile,
  OSError,
  EOFError,
  OverflowError,
  RuntimeError,
  ValueError,
  struct.error,
)


@dataclasses.dataclass(frozen=True)
class Entry:
  """A part of a file.

  Attributes:
    name: as the table has it.
    begin: offset of its first byte.
    size: in bytes.
    checksum: CRC-32 of its bytes, which PyTorch may have left out.
  """

  name: str
  begin: int
  size: int
  checksum: int


def entries(file: BinaryIO) -> dict[str, Entry]:
  """The entries of an archive by name; they are apart, and within the file.

  Raises:
    WeightsError: the archive is damaged, or an entry is compressed or lies.
  """
  try:
    with zipfile.ZipFile(_Bounded(file)) as archive:
      infos = archive.infolist()
  except WeightsError:
    raise
  except _DAMAGE as error:
    raise WeightsError(f"It is a damaged zip archive ({error}).") from None
  found: dict[str, Entry] = {}
  for info in infos:
    name = info.orig_filename
    check_name(name)
    if name.startswith("/") or "\\" in name or posixpath.normpath(name) != name:
      raise WeightsError(
        f"It has an entry {name!r}, whose name leads out of the archive."
      )
    if name in found:
      raise WeightsError(f"It has two entries {name}.")
    if info.compress_type != zipfile.ZIP_STORED or (
      info.file_size != info.compress_size
    ):
      raise WeightsError(
        f"Its entry {name} is compressed; torch.save and byol do not do that."
      )
    found[name] = Entry(name, _begin(file, info), info.file_size, info.CRC)
  end = 0
  for entry in sorted(found.values(), key=lambda entry: entry.begin):
    if entry.begin < end:
      raise WeightsError(f"Its entry {entry.name} lies within another one.")
    end = entry.begin + entry.size
  return found


def _begin(file: BinaryIO, info: zipfile.ZipInfo) -> int:
  """Where the bytes of an entry begin, which its own header tells."""
  size = file.seek(0, 2)
  if not 0 <= info.header_offset < size:
    raise WeightsError(
      f"Its entry {info.orig_filename} begins outside of the file."
    )
  file.seek(info.header_offset)
  header = file.read(LOCAL.size)
  if len(header) == LOCAL.size and header.startswith(BEGINNING):
    _, name, extra = LOCAL.unpack(header)
    begin: int = info.header_offset + LOCAL.size + name + extra
    if begin + info.file_size <= size:
      return begin
  raise WeightsError(f"Its entry {info.orig_filename} is damaged.")


def content(file: BinaryIO, entry: Entry, most: int) -> bytes:
  """The bytes of a short entry; the checksum is not looked at.

  Raises:
    WeightsError: it has more than `most` bytes.
  """
  if entry.size > most:
    raise WeightsError(
      f"Its {entry.name} has {entry.size:,} bytes; expected at most {most:,}."
    )
  file.seek(entry.begin)
  return file.read(entry.size)


def fill(
  memory: memoryview, file: BinaryIO, entry: Entry, *, skipped: int
) -> None:
  """Reads an entry into memory that is there, and checks its checksum.

  Args:
    memory: bytes, of the size of the entry less `skipped`; written.
    file: the archive.
    entry: a part of it.
    skipped: bytes at the entry's beginning that are not wanted.

  Raises:
    WeightsError: it is damaged.
  """
  file.seek(entry.begin)
  checksum = zlib.crc32(file.read(skipped))
  for begin in range(0, len(memory), _CHUNK):
    piece = memory[begin : begin + _CHUNK]
    if file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
      raise WeightsError("The file became shorter while it was read.")
    checksum = zlib.crc32(piece, checksum)
  if checksum != entry.checksum:
    raise WeightsError(f"Its entry {entry.name} is damaged.")


class _Bounded:
  """A file that zipfile asks for the table, of which a file says the size."""

  def __init__(self, file: BinaryIO) -> None:
    self._file = file
    self.seek, self.tell = file.seek, file.tell

  def read(self, size: int = -1) -> Any:
    if size > _MOST_OF_TABLE:
      raise WeightsError(
        f"Its table of entries has {size:,} bytes; expected at most "
        f"{_MOST_OF_TABLE:,}."
      )
    return self._file.read(size if size >= 0 else _MOST_OF_TABLE)
