"""Crops of an image and operations on their colours; no state, no randomness.

Colour operations work on planes: float32 [3, W, H] in [0, 1], one plane for
each channel. The planes are transposed, which saves a pass and matters to no
operation. An operation changes its planes in place and clips as the authors do.
The numbers are theirs (augmentations.py, dataset.py of the BYOL release), and
so are TensorFlow's conventions, on which those files rest.

Numba compiles the loops for this machine when they are first called;
`compile_all` calls each. `tests/float_ops.py` has the same operations in plain
NumPy.
"""

import functools
import math
import threading

import cv2
import numpy as np

from input_pipeline import loops
from input_pipeline.errors import UsageError

# Grain's workers are the parallelism; threads inside each would only compete.
cv2.setNumThreads(0)

Box = tuple[int, int, int, int]
Planes = np.ndarray

_f32 = np.float32
# Scratch arrays with more values are not kept from one image to the next.
_MOST_SCRATCH_VALUES = 4_000_000


def sample_crop(
  height: int,
  width: int,
  uniform: tuple[float, float, float, float],
  area: tuple[float, float],
  aspect: tuple[float, float],
) -> Box:
  """The window (y, x, h, w) of a random resized crop (dataset.py).

  It draws only once: a window larger than the image is cut to it, not drawn
  again. So on elongated images extreme draws lose area and aspect.

  Args:
    height: of the image.
    width: of the image.
    uniform: four random numbers from 0 to 1, for area, aspect, x and y.
    area: the range of h w / (height width), uniform.
    aspect: the range of w / h, log-uniform.
  """
  u_area, u_aspect, u_x, u_y = uniform
  target = height * width * (area[0] + u_area * (area[1] - area[0]))
  ratio = aspect[0] * (aspect[1] / aspect[0]) ** u_aspect
  w = min(max(round(math.sqrt(target * ratio)), 1), width)
  h = min(max(round(math.sqrt(target / ratio)), 1), height)
  return int(u_y * (height - h + 1)), int(u_x * (width - w + 1)), h, w


def center_crop(height: int, width: int, ratio: float) -> Box:
  """Window (y, x, s, s) in the middle, s = ratio of the shorter side.

  At 0.875 this is "shorter side to 256, middle 224" (paper, C.1) in one
  resampling, as in dataset.py.
  """
  s = max(int(ratio * min(height, width)), 1)
  return (height - s + 1) // 2, (width - s + 1) // 2, s, s


def crop_planes(
  image: np.ndarray, box: Box, size: int, *, mirrored: bool = False
) -> Planes:
  """TensorFlow 2's bicubic `tf.image.resize`, not antialiased, of a window.

  Args:
    image: uint8 [H, W, 3], RGB.
    box: the window (y, x, h, w).
    size: of the result, in pixels.
    mirrored: left and right change sides.

  Returns:
    float32 [3, size, size] in [0, 1], to which the cubic's overshoot is cut.
  """
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
    raise UsageError(
      "An image is uint8 [height, width, 3] (RGB): this one is "
      f"{image.dtype} {list(image.shape)}. Convert it where it is decoded."
    )
  y, x, h, w = box
  pixels = np.ascontiguousarray(image).reshape(len(image), -1)
  rows = _scratch("rows", (size, 3 * w))
  _resample_bytes(pixels, y, 3 * x, *taps(h, size, False), rows)
  columns = cv2.transpose(rows, dst=_scratch("columns", (3 * w, size)))
  planes = np.empty((3, size, size), np.float32)
  _resample_columns(columns, *taps(w, size, mirrored), planes)
  return planes


@functools.lru_cache(maxsize=1024)
def taps(
  size: int, new_size: int, mirrored: bool
) -> tuple[np.ndarray, np.ndarray]:
  """The four pixels of each output and their weights, each [new_size, 4].

  The indices are int32 and the weights float32. This is Keys' cubic with
  a = -0.5 on half-pixel centres, as in TensorFlow's kernel
  (resize_bicubic_op.cc): positions are float32, fractions go in steps of
  1/1024, taps outside the image are dropped and the rest are scaled to sum
  one. OpenCV's cubic has a = -0.75 and repeats the border.
  """
  scale = _f32(size) / _f32(new_size)
  half = _f32(0.5)
  position = (np.arange(new_size, dtype=np.float32) + half) * scale - half
  floor = np.floor(position)
  fraction = np.rint((position - floor) * 1024) / 1024
  index = floor.astype(np.int32)[:, None] + np.arange(-1, 3, dtype=np.int32)
  t = np.abs(fraction[:, None] - np.arange(-1, 3))  # Distance to the tap.
  near = (1.5 * t - 2.5) * t**2 + 1
  far = ((-0.5 * t + 2.5) * t - 4) * t + 2
  weight = np.where(t <= 1, near, far) * ((index >= 0) & (index < size))
  weight /= weight.sum(axis=1, keepdims=True)
  order = -1 if mirrored else 1
  return (
    np.ascontiguousarray(np.clip(index, 0, size - 1)[::order]),
    weight[::order].astype(np.float32),
  )


def to_image(planes: Planes) -> np.ndarray:
  """uint8 [H, W, 3] of planes [3, W, H], or of one that serves all channels.

  Values are rounded to the nearest.
  """
  rounded = np.empty(planes.shape, np.uint8)
  _round(planes, rounded)
  channels = [cv2.transpose(plane) for plane in rounded]
  return cv2.merge(channels if len(channels) == 3 else 3 * channels)


def adjust_brightness(planes: Planes, delta: float) -> None:
  """Adds `delta` to all of [3, W, H] (as SimCLR v1)."""
  _brightness(planes, _f32(delta))


def multiply_brightness(planes: Planes, factor: float) -> None:
  """Multiplies all of [3, W, H] by `factor` (as SimCLR v2 and torchvision)."""
  _multiplied(planes, _f32(factor))


def adjust_contrast(planes: Planes, factor: float) -> None:
  """Scales [3, W, H] about each channel's mean (torchvision: mean gray)."""
  _contrast(planes, _f32(factor))


def adjust_saturation(planes: Planes, factor: float) -> None:
  """Multiplies S of HSV, which stays in [0, 1], for all of [3, W, H]."""
  _saturation(planes, _f32(factor))


def adjust_hue(planes: Planes, delta: float) -> None:
  """Turns H of HSV by `delta` (1 = a whole turn) for all of [3, W, H]."""
  _hue(planes, _f32(6 * delta))


def to_grayscale(planes: Planes) -> Planes:
  """Luma of [3, W, H] as [1, W, H], a view of it."""
  _grayscale(planes)
  return planes[:1]


def gaussian_blur(planes: Planes, sigma: float) -> None:
  """Blurs [..., W, H] with 2 floor(H / 20) + 1 taps a direction (App. B: 23).

  Outside the image all is zero, as in a padded convolution, so borders darken,
  as they do in the authors' code. Taps from 4.5 sigma on are left out; together
  they weigh seven millionths.
  """
  radius = min(planes.shape[-1] // 20, math.ceil(4.5 * sigma - 0.5))
  x = np.arange(-radius, radius + 1)
  kernel = np.exp(-(x**2) / (2 * sigma**2))
  kernel = (kernel / kernel.sum()).astype(np.float32)
  for plane in planes:
    cv2.sepFilter2D(
      plane, -1, kernel, kernel, dst=plane, borderType=cv2.BORDER_CONSTANT
    )


def solarize(planes: Planes, threshold: float) -> None:
  """Inverts the values of [..., W, H] that are not below `threshold`."""
  _solarize(planes, _f32(threshold))


def compile_all() -> None:
  """Compiles every loop, which takes some seconds the first time."""
  planes = crop_planes(np.zeros((4, 4, 3), np.uint8), (0, 0, 4, 4), 4)
  adjust_brightness(planes, 0.1)
  multiply_brightness(planes, 1.1)
  adjust_contrast(planes, 1.1)
  adjust_saturation(planes, 1.1)
  adjust_hue(planes, 0.1)
  solarize(planes, 0.5)
  gray = to_grayscale(planes)
  solarize(gray, 0.5)
  to_image(planes)
  to_image(gray)


_kept = threading.local()


def _scratch(name: str, shape: tuple[int, int]) -> np.ndarray:
  """A float32 array that this thread may use until it asks for `name` again.

  New memory would cost more than the work, because the kernel clears every page
  of it.
  """
  size = math.prod(shape)
  if size > _MOST_SCRATCH_VALUES:
    return np.empty(shape, np.float32)
  array = getattr(_kept, name, None)
  if array is None or array.size < size:
    array = np.empty(size, np.float32)
    setattr(_kept, name, array)
  return array[:size].reshape(shape)


_compiled = loops.compiled(fastmath=True)

# The loops below take rows as separate arrays, so that LLVM sees their bounds
# and computes eight values at once.


@_compiled
def _resample_bytes(pixels, top, left, index, weight, out):
  """Resamples a part of uint8 [H, 3 W] to [size, 3 w], along the first axis.

  Values stay in 0..255.
  """
  right = left + out.shape[1]
  for y in range(len(out)):
    row0 = pixels[top + index[y, 0], left:right]
    row1 = pixels[top + index[y, 1], left:right]
    row2 = pixels[top + index[y, 2], left:right]
    row3 = pixels[top + index[y, 3], left:right]
    w0, w1, w2, w3 = weight[y, 0], weight[y, 1], weight[y, 2], weight[y, 3]
    row = out[y]
    for i in range(len(row)):
      row[i] = (
        w0 * _f32(row0[i])
        + w1 * _f32(row1[i])
        + w2 * _f32(row2[i])
        + w3 * _f32(row3[i])
      )


@_compiled
def _resample_columns(columns, index, weight, planes):
  """Resamples columns [3 w, size], 0..255, to planes [3, size, size], 0..1."""
  scale = _f32(1 / 255)
  for c in range(3):
    for x in range(len(index)):
      row0, row1 = columns[3 * index[x, 0] + c], columns[3 * index[x, 1] + c]
      row2, row3 = columns[3 * index[x, 2] + c], columns[3 * index[x, 3] + c]
      w0, w1 = weight[x, 0] * scale, weight[x, 1] * scale
      w2, w3 = weight[x, 2] * scale, weight[x, 3] * scale
      row = planes[c, x]
      for i in range(len(row)):
        value = w0 * row0[i] + w1 * row1[i] + w2 * row2[i] + w3 * row3[i]
        row[i] = min(max(value, _f32(0)), _f32(1))


@_compiled
def _round(planes, out):
  values, rounded = planes.reshape(-1), out.reshape(-1)
  for i in range(len(values)):
    rounded[i] = np.uint8(_f32(255) * values[i] + _f32(0.5))


@_compiled
def _brightness(planes, delta):
  values = planes.reshape(-1)
  for i in range(len(values)):
    values[i] = min(max(values[i] + delta, _f32(0)), _f32(1))


@_compiled
def _multiplied(planes, factor):
  values = planes.reshape(-1)
  for i in range(len(values)):
    values[i] = min(values[i] * factor, _f32(1))


@_compiled
def _contrast(planes, factor):
  for c in range(len(planes)):
    values = planes[c].reshape(-1)
    total = _f32(0)
    for i in range(len(values)):
      total += values[i]
    offset = (_f32(1) - factor) * total / _f32(len(values))
    for i in range(len(values)):
      values[i] = min(max(values[i] * factor + offset, _f32(0)), _f32(1))


@_compiled
def _saturation(planes, factor):
  """Multiplies S by `factor`, to at most 1; V and H stay.

  A channel is x = V - S V k with its own k from 0 to 1, so x moves along a line
  as S changes.
  """
  red = planes[0].reshape(-1)
  green = planes[1].reshape(-1)
  blue = planes[2].reshape(-1)
  for i in range(len(red)):
    r, g, b = red[i], green[i], blue[i]
    value = max(r, max(g, b))
    chroma = value - min(r, min(g, b))
    times = min(factor, value / max(chroma, _f32(1e-9)))
    red[i] = max(value - (value - r) * times, _f32(0))
    green[i] = max(value - (value - g) * times, _f32(0))
    blue[i] = max(value - (value - b) * times, _f32(0))


@_compiled
def _hue(planes, delta):
  """Turns H by `delta` sixths of a turn; of equal channels the first leads."""
  zero, one, four, six = _f32(0), _f32(1), _f32(4), _f32(6)
  red = planes[0].reshape(-1)
  green = planes[1].reshape(-1)
  blue = planes[2].reshape(-1)
  for i in range(len(red)):
    r, g, b = red[i], green[i], blue[i]
    value = max(r, max(g, b))
    chroma = value - min(r, min(g, b))
    largest_red, largest_green = r == value, g == value
    edge = (g - b) if largest_red else ((b - r) if largest_green else (r - g))
    start = zero if largest_red else (_f32(2) if largest_green else four)
    hue = edge / max(chroma, _f32(1e-9)) + start + delta
    hue -= six * np.floor(hue * _f32(1 / 6))
    # As a function of the hue each channel is a trapezium; red's is around 0.
    at = hue + _f32(5)
    at -= six if at >= six else zero
    red[i] = value - chroma * max(zero, min(min(at, four - at), one))
    at = hue + _f32(3)
    at -= six if at >= six else zero
    green[i] = value - chroma * max(zero, min(min(at, four - at), one))
    at = hue + _f32(1)
    at -= six if at >= six else zero
    blue[i] = value - chroma * max(zero, min(min(at, four - at), one))


@_compiled
def _grayscale(planes):
  """Writes luma to the first plane, by tf.image.rgb_to_grayscale's digits."""
  red = planes[0].reshape(-1)
  green = planes[1].reshape(-1)
  blue = planes[2].reshape(-1)
  for i in range(len(red)):
    red[i] = (
      _f32(0.2989) * red[i] + _f32(0.5870) * green[i] + _f32(0.1140) * blue[i]
    )


@_compiled
def _solarize(planes, threshold):
  values = planes.reshape(-1)
  for i in range(len(values)):
    # |1 - x| from the threshold on, |0 - x| below.
    values[i] = abs(_f32(values[i] >= threshold) - values[i])
