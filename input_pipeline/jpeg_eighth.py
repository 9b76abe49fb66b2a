"""Decodes ordinary JPEGs at 1/8 of their size, as libjpeg does but faster.

libjpeg spends nearly all its time on Huffman codes, which it takes one at a
time, although at this size most are not wanted: a block of 8 x 8 pixels leaves
its mean, or 2 x 2 pixels of a colour that has half the resolution. Here one
look into a table steps over several codes that are not wanted.

The pixels are libjpeg's, bit for bit. A file that is unusual or at fault in any
way is left to libjpeg, which decides what it is worth, so the same files count
as damaged. The numbers are those of libjpeg's jidctred.c and jdcolor.c.
"""

import functools
import struct

import numpy as np

from input_pipeline import jpeg_blocks, jpeg_scan
from input_pipeline.jpeg_blocks import LOOKED_AT
from input_pipeline.jpeg_scan import Scan, Unusual


def decode(data: bytes) -> np.ndarray | None:
  """Decodes a JPEG at 1/8.

  Args:
    data: all bytes of a file whose headers do not lie about its size.

  Returns:
    uint8 [H, W, 3], RGB, not turned by EXIF, sides rounded up; or None if the
    file is left to libjpeg.
  """
  try:
    return _decode(data, jpeg_scan.read(data))
  except (Unusual, LookupError, struct.error):
    return None


def _decode(data: bytes, scan: Scan) -> np.ndarray:
  if max(scan.height, scan.width) <= 8:
    raise Unusual  # a single pixel, which libjpeg need not take at 1/8
  across, down = scan.channels[0].blocks
  rows, columns = -(-scan.height // (8 * down)), -(-scan.width // (8 * across))
  interval = scan.interval or rows * columns
  parts = -(-rows * columns // interval)
  if 2 * parts > len(data):
    raise Unusual  # not even the markers between them fit into the file
  coded = np.frombuffer(data, np.uint8)[scan.start :]
  clean = np.empty(len(coded) + jpeg_blocks.PADDING, np.uint8)
  ends = np.zeros(parts, np.int64)
  marks = np.flatnonzero(coded[:-1] == 0xFF)
  if not jpeg_blocks.unstuff(coded, marks, clean, ends):
    raise Unusual
  planes = np.empty(
    (len(scan.channels), rows * down, columns * across), np.uint8
  )
  kinds = scan.channels[:2]
  first = np.stack([_codes(channel.first) for channel in kinds])
  rest = np.stack([_codes(channel.rest) for channel in kinds])
  skips = np.stack([_skips(channel.rest) for channel in kinds])
  values = np.stack([_values(channel.rest) for channel in kinds])
  quantum = np.array([list(channel.quantum) for channel in kinds])
  sound = jpeg_blocks.read_blocks(
    clean,
    ends,
    interval,
    first,
    rest,
    skips,
    values,
    quantum,
    planes,
    down,
    across,
  )
  if not sound:
    raise Unusual
  return _rgb(planes, scan)


def _rgb(planes: np.ndarray, scan: Scan) -> np.ndarray:
  """The image of planes [channels, height, width] of whole units."""
  across, down = scan.channels[0].blocks
  if across != down:  # colours with half of one resolution have one value
    colours = planes[1:, ::down, ::across]
    planes[1:] = colours.repeat(down, axis=1).repeat(across, axis=2)
  planes = planes[:, : -(-scan.height // 8), : -(-scan.width // 8)]
  if len(planes) == 1:
    return np.repeat(planes[0][..., None], 3, axis=2)
  image = np.empty((*planes.shape[1:], 3), np.uint8)
  jpeg_blocks.to_rgb(planes, image)
  return image


@functools.lru_cache(maxsize=16)
def _codes(table: bytes) -> np.ndarray:
  """For the next 16 bits: 256 times the length of their code, and its symbol.

  uint16 [65536]; 0 where no code begins so. Codes count upwards (C.2).
  """
  lengths = np.repeat(np.arange(1, 17), np.frombuffer(table, np.uint8, 16))
  spans = 1 << (16 - lengths)
  if spans.sum() >= 1 << 16:
    raise Unusual  # ones only are no code
  entries = lengths << 8 | np.frombuffer(table, np.uint8, offset=16)
  codes = np.zeros(1 << 16, np.uint16)
  codes[: spans.sum()] = np.repeat(entries, spans)
  return codes


@functools.lru_cache(maxsize=16)
def _skips(table: bytes) -> np.ndarray:
  """See `jpeg_blocks.fill_skips`."""
  skips = np.zeros(1 << LOOKED_AT, np.uint16)
  jpeg_blocks.fill_skips(_codes(table), skips)
  return skips


@functools.lru_cache(maxsize=16)
def _values(table: bytes) -> np.ndarray:
  """See `jpeg_blocks.fill_values`."""
  values = np.zeros(1 << LOOKED_AT, np.int32)
  jpeg_blocks.fill_values(_codes(table), values)
  return values
