"""What the headers of an ordinary JPEG say about its only scan.

Sections are those of ITU-T T.81. Anything that is allowed but unusual raises
`Unusual`, `LookupError` or `struct.error`, so that other decoders can take it.
"""

import struct
from typing import NamedTuple

_SOF0, _SOF1, _DHT, _SOS, _DQT, _DRI = 0xC0, 0xC1, 0xC4, 0xDA, 0xDB, 0xDD
_JFIF, _ADOBE, _COMMENT = 0xE0, 0xEE, 0xFE
_APPLICATION = range(0xE0, 0xF0)
_YCBCR = (1, 2, 3)  # names of the components, in JFIF
_LUMA_BLOCKS = ((1, 1), (2, 1), (1, 2), (2, 2))


class Unusual(Exception):
  """The file is left to other decoders, which may accept it or not."""


class Channel(NamedTuple):
  """A component: luma or grey first, then blue and red.

  Attributes:
    blocks: across and down, of a unit of the scan (MCU).
    quantum: 64 numbers, of the coefficients in zigzag order.
    first: lengths and symbols of the codes of a block's mean (DC).
    rest: the same of all other coefficients (AC).
  """

  blocks: tuple[int, int]
  quantum: bytes
  first: bytes
  rest: bytes


class Scan(NamedTuple):
  """All that is needed to decode a scan.

  Attributes:
    height: of the image as it is stored.
    width: the same.
    channels: one or three; colours have one block in a unit.
    interval: units between restarts; 0 if there are none.
    start: where the coded samples begin in the file.
  """

  height: int
  width: int
  channels: list[Channel]
  interval: int
  start: int


def read(data: bytes) -> Scan:
  """Walks the segments of a file up to its scan (B.2)."""
  tables: dict[int, bytes] = {}
  quanta: dict[int, bytes] = {}
  frame, interval, position = b"", 0, 2
  while True:
    start, code, length = struct.unpack_from(">BBH", data, position)
    segment = data[position + 4 : position + 2 + length]
    position += 2 + length
    if start != 0xFF or len(segment) != length - 2:
      raise Unusual
    if code in (_SOF0, _SOF1) and not frame:
      frame = segment
    elif code == _DHT:
      tables.update(_huffman_tables(segment))
    elif code == _DQT:
      quanta.update(_quantization_tables(segment))
    elif code == _DRI:
      (interval,) = struct.unpack(">H", segment)
    elif code == _SOS:
      height, width = _size(frame, segment)
      channels = _channels(frame, segment, tables, quanta)
      return Scan(height, width, channels, interval, position)
    elif code == _ADOBE and segment.startswith(b"Adobe"):
      if segment[11] != 1:  # the transform, here none to YCbCr
        raise Unusual
    elif code == _JFIF and segment.startswith(b"JFIF\0"):
      if segment[5] != 1:  # the revision
        raise Unusual
    elif code not in _APPLICATION and code != _COMMENT:
      raise Unusual


def _huffman_tables(segment: bytes) -> dict[int, bytes]:
  """Class and number (Tc, Th) -> lengths and symbols (B.2.4.2)."""
  tables = {}
  while segment:
    size = 17 + sum(segment[1:17])
    if len(segment) < size:
      raise Unusual
    tables[segment[0]] = segment[1:size]
    segment = segment[size:]
  return tables


def _quantization_tables(segment: bytes) -> dict[int, bytes]:
  """Precision and number (Pq, Tq) -> 64 numbers in zigzag order (B.2.4.1)."""
  if len(segment) % 65:
    raise Unusual  # numbers of 16 bits
  return {
    segment[at]: segment[at + 1 : at + 65] for at in range(0, len(segment), 65)
  }


def _size(frame: bytes, scan: bytes) -> tuple[int, int]:
  """Height and width, if a frame (B.2.2) is all in one scan (B.2.3)."""
  precision, height, width, count = struct.unpack_from(">BHHB", frame)
  if (
    precision != 8
    or not height * width
    or count not in (1, 3)
    or len(frame) != 6 + 3 * count
    or len(scan) != 4 + 2 * count
    or scan[0] != count
    or scan[-3:] != b"\0\x3f\0"  # all coefficients, with all bits
  ):
    raise Unusual
  return height, width


def _channels(
  frame: bytes,
  scan: bytes,
  tables: dict[int, bytes],
  quanta: dict[int, bytes],
) -> list[Channel]:
  count = frame[5]
  channels = []
  for at in range(count):
    name, factors, quantum = frame[6 + 3 * at : 9 + 3 * at]
    again, chosen = scan[1 + 2 * at : 3 + 2 * at]
    blocks = (factors >> 4, factors & 15) if count == 3 else (1, 1)
    allowed = ((1, 1),) if at else _LUMA_BLOCKS
    if name != again or blocks not in allowed:
      raise Unusual
    if count == 3 and name != _YCBCR[at]:
      raise Unusual
    first, rest = tables[chosen >> 4], tables[0x10 | chosen & 15]
    if max(first[16:], default=16) > 15:
      raise Unusual  # differences of means have at most 15 bits
    channels.append(Channel(blocks, quanta[quantum], first, rest))
  if channels[1:2] != channels[2:]:
    raise Unusual  # the colours have different tables
  return channels
