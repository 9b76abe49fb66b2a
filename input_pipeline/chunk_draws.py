"""Draws the numbers that Grain would draw, for a whole chunk at once.

Grain gives every example a generator of its own, and Python turns its numbers
into draws, which takes some ten microseconds. If nothing else is done to an
example (`resident.DrawStream`), an accelerator has to wait for that. The loop
here makes the same bits in a few tenths of a microsecond:

- the order is Grain's `index_shuffle`: a block cipher of four rounds (a Simon)
  applied to the index until the outcome lies within the epoch; its keys are
  those of C++'s `std::seed_seq`;
- the numbers are those of NumPy's Philox 4x64-10, whose counter Grain sets to
  (0, 0, 0, index of the example);
- `augment.sample_view` says what they mean; `_draw_view` repeats it.

A loop's operations come in Python's order, without `fastmath`, so that no
result differs in its last bit.
"""

import functools
import importlib.metadata
import math

import grain
import numpy as np

from input_pipeline import augment, loops, retried_crops
from input_pipeline.errors import RunError

_u64 = np.uint64
_M0, _M1 = _u64(0xD2E7470EE14C6C93), _u64(0xCA5A826395121157)
_W0, _W1 = _u64(0x9E3779B97F4A7C15), _u64(0xBB67AE8584CAA73B)
_LOW = _u64(0xFFFFFFFF)
_S1, _S2, _S8, _S11, _S32 = (_u64(n) for n in (1, 2, 8, 11, 32))
_ROUNDS = 4  # of the cipher, as Grain calls it
_LEAST_BITS = 16  # of the cipher's block
_UNIFORMS = 18  # random numbers that a view takes
_ADD, _MULTIPLY = augment.ADD, augment.MULTIPLY  # Numba reads constants here


def generator_key(seed: int) -> np.ndarray:
  """Key of the generators of Grain's `random_map(seed=seed)`: uint64 [2]."""
  return np.random.Philox(seed).state["state"]["key"]


def settings(view: augment.View) -> np.ndarray:
  """The numbers of a view in the order of `_draw_view`: float64 [18]."""
  return np.array(
    [
      *view.crop_area,
      *view.crop_aspect,
      view.flip_probability,
      view.jitter_probability,
      view.brightness,
      view.contrast,
      view.saturation,
      view.hue,
      view.grayscale_probability,
      view.blur_probability,
      *view.blur_sigma,
      view.solarize_probability,
      view.solarize_threshold,
      view.crop_sampling == "retried",
      view.brightness_mode == "multiply",
    ],
    np.float64,
  )


def order(first: int, count: int, *, length: int, seed: int) -> np.ndarray:
  """The examples at position `first` and after it in Grain's endless shuffle.

  Args:
    first: position in the stream.
    count: how many.
    length: of an epoch.
    seed: of the shuffle.

  Returns:
    int64 [count], from 0 to length - 1.
  """
  found = np.empty(count, np.int64)
  done = 0
  while done < count:
    epoch, start = divmod(first + done, length)
    part = found[done : done + length - start]
    _shuffle(start, length - 1, round_keys((seed + epoch) % 2**32), part)
    done += len(part)
  return found


def draw(
  first: int, sizes: np.ndarray, key: np.ndarray, views: np.ndarray
) -> np.ndarray:
  """Both packed draws for the examples at first, first + 1, ... of a stream.

  Args:
    first: position in the stream.
    sizes: int32 [n, 2], heights and widths of the images.
    key: from `generator_key`.
    views: float64 [2, 18], from `settings`.

  Returns:
    float32 [n, 2, augment.DRAW_SIZE]; see `augment.pack`.
  """
  draws = np.empty((len(sizes), 2, augment.DRAW_SIZE), np.float32)
  _draw(first, sizes, key, views, draws)
  return draws


def check_grain(shuffle_seed: int, map_seed: int) -> None:
  """Checks that the installed Grain has the same order and generators.

  Raises:
    RunError: it has others.
  """
  length = 1000
  stream = grain.MapDataset.range(length).shuffle(seed=shuffle_seed)
  stream = stream.repeat(None).random_map(_first_number, seed=map_seed)
  first = length - 2  # until a second epoch has begun
  places = order(first, 4, length=length, seed=shuffle_seed)
  key = generator_key(map_seed)
  for i, place in enumerate(places, first):
    word = _philox(_u64(i), _S1, key[0], key[1])[0]
    if stream[i] != (place, (word >> _S11) / 2.0**53):
      raise RunError(
        f"Grain {importlib.metadata.version('grain')} orders or draws examples "
        "in another way than the version in constraints.txt; install that one, "
        "or leave the images on the host: --config.augment.cache=none"
      )


def _first_number(place: int, rng: np.random.Generator) -> tuple[int, float]:
  return place, rng.random()


@functools.lru_cache(maxsize=16)
def round_keys(seed: int) -> np.ndarray:
  """The four words that `std::seed_seq{seed}` generates: uint64 [4]."""
  n, mask = _ROUNDS, 0xFFFFFFFF
  words = [0x8B8B8B8B] * n

  def mixed(x: int, factor: int) -> int:
    x &= mask
    return factor * (x ^ x >> 27) & mask

  for k in range(n):
    a, b, c = k % n, (k + 1) % n, (k + 2) % n
    r1 = mixed(words[a] ^ words[b] ^ words[a - 1], 1664525)
    r2 = r1 + (1 if k == 0 else a + (seed if k == 1 else 0))
    words[b] = words[b] + r1 & mask
    words[c] = words[c] + r2 & mask
    words[a] = r2 & mask
  for k in range(n, 2 * n):
    a, b, c = k % n, (k + 1) % n, (k + 2) % n
    r3 = mixed(words[a] + words[b] + words[a - 1], 1566083941)
    r4 = r3 - a
    words[b] ^= r3
    words[c] = (words[c] ^ r4) & mask
    words[a] = r4 & mask
  return np.array(words, np.uint64)


_compiled = loops.compiled(fastmath=False)


@_compiled
def _shuffle(start, last, keys, out):
  bits = 0
  while last > 1 << bits:
    bits += 1
  half = _u64(max(bits + bits % 2, _LEAST_BITS) // 2)
  mask = (_S1 << half) - _S1
  for i in range(len(out)):
    value = _u64(start + i)
    while last:  # a single example stays where it is
      left, right = value >> half & mask, value & mask
      for k in range(0, _ROUNDS, 2):
        left ^= _mix(right, half, mask) ^ keys[k] & mask
        right ^= _mix(left, half, mask) ^ keys[k + 1] & mask
      value = left << half | right
      if value <= _u64(last):
        break
    out[i] = value


@_compiled
def _mix(x, bits, mask):
  """The round function of Simon on words of so many bits."""
  by1 = (x << _S1 | x >> (bits - _S1)) & mask
  by2 = (x << _S2 | x >> (bits - _S2)) & mask
  by8 = (x << _S8 | x >> (bits - _S8)) & mask
  return by1 & by8 ^ by2


@_compiled
def _times(a, b):
  """The upper and lower half of the product of two numbers of 64 bits."""
  a0, a1, b0, b1 = a & _LOW, a >> _S32, b & _LOW, b >> _S32
  middle = a1 * b0 + (a0 * b0 >> _S32)
  other = a0 * b1 + (middle & _LOW)
  return a1 * b1 + (middle >> _S32) + (other >> _S32), a * b


@_compiled
def _philox(index, block, key0, key1):
  """Four words of the generator of example `index`."""
  c0, c1, c2, c3 = block, _u64(0), _u64(0), index
  for _ in range(10):
    high0, low0 = _times(_M0, c0)
    high1, low1 = _times(_M1, c2)
    c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
    key0 += _W0
    key1 += _W1
  return c0, c1, c2, c3


@_compiled
def _draw(first, sizes, key, views, out):
  u = np.empty(2 * _UNIFORMS, np.float64)
  for i in range(len(sizes)):
    for block in range(2 * _UNIFORMS // 4):
      words = _philox(_u64(first + i), _u64(block + 1), key[0], key[1])
      for k in range(4):
        u[4 * block + k] = (words[k] >> _S11) / 9007199254740992.0
    for view in range(2):
      uniform = u[_UNIFORMS * view : _UNIFORMS * (view + 1)]
      _draw_view(sizes[i, 0], sizes[i, 1], uniform, views[view], out[i, view])


@_compiled
def _clamped(height, width, u, view):
  """`image_ops.sample_crop`."""
  target = height * width * (view[0] + u[0] * (view[1] - view[0]))
  ratio = view[2] * (view[3] / view[2]) ** u[1]
  # A half is rounded to the even number, as in Python.
  w = min(max(int(np.rint(math.sqrt(target * ratio))), 1), width)
  h = min(max(int(np.rint(math.sqrt(target / ratio))), 1), height)
  return int(u[3] * (height - h + 1)), int(u[2] * (width - w + 1)), h, w


@_compiled
def _draw_view(height, width, u, view, out):
  """`augment.sample_view` and `augment.pack`."""
  if view[16]:
    box = retried_crops.sample(
      height,
      width,
      u[0],
      u[1],
      u[2],
      u[3],
      view[0],
      view[1],
      view[2],
      view[3],
    )
  else:
    box = _clamped(height, width, u, view)
  out[0], out[1], out[2], out[3] = box
  out[4] = u[4] < view[4]  # flip
  out[5] = u[5] < view[5]  # jitter
  for k in range(4):  # the order of the four, by their numbers
    place = 0
    for other in range(4):
      less = u[6 + other] < u[6 + k]
      place += less or (u[6 + other] == u[6 + k] and other < k)
    out[6 + place] = _MULTIPLY if view[17] and k == _ADD else k
  out[10] = view[17] + view[6] * (2 * u[10] - 1)  # brightness
  out[11] = 1.0 + view[7] * (2 * u[11] - 1)  # contrast
  out[12] = 1.0 + view[8] * (2 * u[12] - 1)  # saturation
  out[13] = 0.0 + view[9] * (2 * u[13] - 1)  # hue
  out[14] = u[14] < view[10]  # grayscale
  out[15] = u[15] < view[11]  # blur
  out[16] = view[12] + (view[13] - view[12]) * u[16]  # sigma
  out[17] = u[17] < view[14]  # solarize
  out[18] = view[15]  # threshold
