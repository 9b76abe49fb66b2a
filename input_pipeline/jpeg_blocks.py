"""Loops over the blocks of a scan: `jpeg_eighth` says what for.

A position in a scan is three uint64: the next byte to be read, the bits read
already, from the upper end, and how many of them are not yet used. Numba would
turn a sum of uint64 and int64 into float64, so constants are uint64 too, and
unsigned indices spare the test for negative ones.
"""

import numpy as np

from input_pipeline import loops

LOOKED_AT = 12  # bits; tables for them fit into the first cache
# How many bytes may be read after the end: a block takes at most 65 codes of 16
# bits, each with 15 bits of a number, and 16 bytes are read before their time.
PADDING = 65 * 31 // 8 + 32
# No block of pixels has larger coefficients. With these no sum overflows in
# libjpeg's SIMD code, which has 16 and 32 bits.
_LARGEST = 2047

# Row and column of each coefficient, in zigzag order (figure A.6).
_ZIGZAG = sorted(
  ((y, x) for y in range(8) for x in range(8)),
  key=lambda at: (sum(at), at[0] if sum(at) % 2 else at[1]),
)
_COLUMN = np.array([x for _, x in _ZIGZAG])
# What an odd frequency weighs in the difference of the two halves of a block:
# jidctred.c has the numbers times 2**13. Of the even ones only 0 is used.
_WEIGHT = np.array([0, 29692, 0, -10426, 0, 6967, 0, -5906])
_ROW = np.array([min(y, 1) for y, _ in _ZIGZAG])
_ROW_WEIGHT = np.where(_ROW, _WEIGHT[[y for y, _ in _ZIGZAG]], 1)

_compiled = loops.compiled(fastmath=False)
_u64 = np.uint64


@_compiled
def fill_skips(codes, skips):
  """Finds what can be stepped over at once.

  Args:
    codes: uint16 [65536], see `jpeg_eighth`.
    skips: uint16 [2**LOOKED_AT], to be filled for the next bits. The low 5 bits
      of an entry say how many bits to step over, 0 if not even the first code
      is in what is looked at; 32 is added if the block ends with them. From bit
      6 on it counts the coefficients, and one more if the block ends.
  """
  for start in range(len(skips)):
    used = np.int64(0)
    count = np.int64(0)
    end = False
    while used < LOOKED_AT and not end:
      left = (start << used) & (len(skips) - 1)
      entry = np.int64(codes[left << (16 - LOOKED_AT)])
      length, run, size = entry >> 8, (entry >> 4) & 15, entry & 15
      if length == 0 or used + length > LOOKED_AT or count + run + 1 > 63:
        break
      end = bool(size == 0 and run < 15)
      used += length + size
      count += 1 if end else run + 1
    skips[start] = used | np.int64(end) << 5 | count << 6


@_compiled
def fill_values(codes, values):
  """Finds the coefficients that can be read at one look.

  Args:
    codes: uint16 [65536], see `jpeg_eighth`.
    values: int32 [2**LOOKED_AT], to be filled for the next bits: how many they
      are, 32 times how many zeros come before the coefficient, and 512 times
      its value. It stays 0 where more bits must be known, or the block ends.
  """
  for start in range(len(values)):
    length, run, size = _code(codes[start << (16 - LOOKED_AT)])
    if size != _u64(0) and length + size <= _u64(LOOKED_AT):
      bits = _u64(start) << _u64(64 - LOOKED_AT)
      value = _value(bits, length, size)
      values[start] = value << 9 | np.int64(run << _u64(5) | (length + size))


@_compiled
def unstuff(coded, marks, clean, ends):
  """Copies a scan without stuffing and markers, and zeros after it (B.1.1.5).

  Args:
    coded: uint8, from the start of the scan to the end of the file.
    marks: int64, where `coded` is 0xFF, but for its last byte.
    clean: uint8 [len(coded) + PADDING], to be filled.
    ends: int64 [parts], takes where in `clean` each part ends.

  Returns:
    Whether the scan has so many parts, restarted in order, and the image ends
    with it.
  """
  n = part = begin = 0
  for at in marks:
    stop = at + 1 if coded[at + 1] == 0 else at
    clean[n : n + stop - begin] = coded[begin:stop]
    n += stop - begin
    begin = at + 2
    marker = coded[at + 1]
    if marker == 0:
      continue
    ends[part] = n
    part += 1
    if part == len(ends):
      clean[n : n + PADDING] = 0
      return marker == 0xD9
    if marker != 0xD0 + (part - 1) % 8:
      return False
  return False


@_compiled
def _refilled(clean, position, bits, count):
  """The same position with 56 bits read or more."""
  value = (
    _u64(clean[position]) << _u64(56)
    | _u64(clean[position + _u64(1)]) << _u64(48)
    | _u64(clean[position + _u64(2)]) << _u64(40)
    | _u64(clean[position + _u64(3)]) << _u64(32)
    | _u64(clean[position + _u64(4)]) << _u64(24)
    | _u64(clean[position + _u64(5)]) << _u64(16)
    | _u64(clean[position + _u64(6)]) << _u64(8)
    | _u64(clean[position + _u64(7)])
  )
  bits |= value >> count
  return position + ((_u64(63) - count) >> _u64(3)), bits, count | _u64(56)


@_compiled
def _code(entry):
  """Length of a code, and run and size of its symbol (F.1.2.2.1)."""
  entry = _u64(entry)
  return entry >> _u64(8), entry >> _u64(4) & _u64(15), entry & _u64(15)


@_compiled
def _value(bits, length, size):
  """The number of `size` bits that follows a code (F.2.2.1, EXTEND)."""
  value = np.int64((bits << length) >> _u64(1) >> (_u64(63) - size))
  largest = (np.int64(1) << np.int64(size)) - 1
  # Numbers of the lower half are negative; a branch would often be mistaken.
  return value - (largest & -np.int64(value <= largest >> 1))


@_compiled
def read_blocks(
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
):
  """Decodes all blocks; returns whether nothing is wrong with them.

  Args:
    clean: uint8, of `unstuff`.
    ends: int64, the same.
    interval: units between restarts.
    first: uint16 [kinds, 65536], codes of the means, of luma and of colours.
    rest: the same, of all other coefficients.
    skips: uint16 [kinds, 2**LOOKED_AT], of `fill_skips`.
    values: int32 [kinds, 2**LOOKED_AT], of `fill_values`.
    quantum: int64 [kinds, 64], see `jpeg_scan`.
    planes: uint8 [channels, height, width], whole units, to be filled. Of
      colours only the first pixel of a unit is, unless they have 2 x 2.
    down: rows of a unit.
    across: columns of a unit.
  """
  before = np.zeros(3, np.int64)
  sums = np.zeros((2, 8), np.int64)
  position, bits, count = _u64(0), _u64(0), _u64(0)
  part, left_over = 0, interval
  for top in range(0, planes.shape[1], down):
    for left in range(0, planes.shape[2], across):
      if left_over == 0:
        if _used(position, count) != ends[part]:
          return False
        position, bits, count = _u64(ends[part]), _u64(0), _u64(0)
        before[:] = 0
        part, left_over = part + 1, interval
      left_over -= 1
      for c in range(len(planes)):
        kind = min(c, 1)  # both colours have the same tables
        for y in range(top, top + down if c == 0 else top + 1):
          for x in range(left, left + across if c == 0 else left + 1):
            if _used(position, count) > ends[part]:
              return False
            position, bits, count = _refilled(clean, position, bits, count)
            length, _, size = _code(first[kind, bits >> _u64(48)])
            if length == _u64(0):
              return False
            before[c] += _value(bits, length, size)
            mean = before[c] * quantum[kind, 0]
            if abs(mean) > _LARGEST:
              return False
            bits <<= length + size
            count -= length + size
            if c and across == 2 and down == 2:
              sums[:] = 0
              sums[0, 0] = mean
              good, position, bits, count = _read_sums(
                clean, position, bits, count, rest, values, quantum, sums
              )
              _write_halves(sums, planes, c, y, x)
            else:
              good, position, bits, count = _skip(
                clean, position, bits, count, rest, skips, kind
              )
              planes[c, y, x] = _pixel((mean + 4) >> 3)
            if not good:
              return False
  return _used(position, count) == ends[part]


@_compiled
def _used(position, count):
  """How many bytes are used, the last perhaps in part."""
  return np.int64(position) - (np.int64(count) >> 3)


@_compiled
def _pixel(value):
  return np.uint8(min(max(value + 128, 0), 255))


@_compiled
def _skip(clean, position, bits, count, codes, skips, kind):
  """Steps over all coefficients of a block but the mean.

  Returns whether nothing is wrong, and the position after it.
  """
  k = _u64(0)
  while k < _u64(63):
    position, bits, count = _refilled(clean, position, bits, count)
    entry = _u64(skips[kind, bits >> _u64(64 - LOOKED_AT)])
    used, then = entry & _u64(31), k + (entry >> _u64(6))
    if used != _u64(0) and then <= _u64(63):
      bits <<= used
      count -= used
      if entry & _u64(32) != _u64(0):
        return True, position, bits, count
      k = then
      continue
    length, run, size = _code(codes[kind, bits >> _u64(48)])
    if length == _u64(0):
      return False, position, bits, count
    bits <<= length + size
    count -= length + size
    if size == _u64(0) and run < _u64(15):
      return True, position, bits, count
    k += run + _u64(1)
  return k == _u64(63), position, bits, count


@_compiled
def _read_sums(clean, position, bits, count, codes, values, quantum, sums):
  """Decodes a block of a colour, but for its mean; returns as `_skip` does.

  Adds to `sums` [2, 8], for every column, the coefficient at the top and the
  sum of the others as jpeg_idct_2x2 of jidctred.c weighs them.
  """
  k = _u64(1)
  while k < _u64(64):
    position, bits, count = _refilled(clean, position, bits, count)
    quick = values[1, bits >> _u64(64 - LOOKED_AT)]
    if quick:
      value = np.int64(quick >> 9)
      run, used = _u64(quick >> 5) & _u64(15), _u64(quick) & _u64(31)
    else:
      length, run, size = _code(codes[1, bits >> _u64(48)])
      if length == _u64(0):
        return False, position, bits, count
      value = _value(bits, length, size)
      used = length + size
      if size == _u64(0) and run < _u64(15):
        return True, position, bits << used, count - used
    bits <<= used
    count -= used
    k += run
    if k > _u64(63):
      return False, position, bits, count
    value *= quantum[1, k]
    if abs(value) > _LARGEST:
      return False, position, bits, count
    sums[_ROW[k], _COLUMN[k]] += value * _ROW_WEIGHT[k]
    k += _u64(1)
  return k == _u64(64), position, bits, count


@_compiled
def _write_halves(sums, planes, c, top, left):
  """Writes the 2 x 2 pixels that jpeg_idct_2x2 makes of a block's sums."""
  for y in range(2):
    sign = 1 - 2 * y
    even, odd = np.int64(0), np.int64(0)
    for x in (0, 1, 3, 5, 7):
      column = ((sums[0, x] << 15) + sign * sums[1, x] + (1 << 12)) >> 13
      if x == 0:
        even = (column << 15) + (1 << 19)
      else:
        odd += column * _WEIGHT[x]
    planes[c, top + y, left] = _pixel((even + odd) >> 20)
    planes[c, top + y, left + 1] = _pixel((even - odd) >> 20)


@_compiled
def to_rgb(planes, image):
  """YCbCr [3, H, W] to RGB [H, W, 3], uint8, in steps of 2**-16 (jdcolor.c)."""
  for y in range(image.shape[0]):
    for x in range(image.shape[1]):
      luma = np.int64(planes[0, y, x])
      blue = np.int64(planes[1, y, x]) - 128
      red = np.int64(planes[2, y, x]) - 128
      green = (-46802 * red - 22554 * blue + 32768) >> 16
      image[y, x, 0] = min(max(luma + ((91881 * red + 32768) >> 16), 0), 255)
      image[y, x, 1] = min(max(luma + green, 0), 255)
      image[y, x, 2] = min(max(luma + ((116130 * blue + 32768) >> 16), 0), 255)
