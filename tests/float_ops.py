"""The operations of `image_ops` once more, written otherwise: an oracle.

Plain NumPy and OpenCV on one image [H, W, 3]. Every operation takes and returns
float32 in [0, 1] and clips as the authors do; only `resize_bicubic` takes
uint8. `apply_view` makes a whole view of them.
"""

import cv2
import numpy as np

# tf.image.rgb_to_grayscale: ITU-R 601 luma, to four digits.
_LUMA = np.array([0.2989, 0.5870, 0.1140], np.float32)


def _cubic_taps(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray]:
  """Where each output looks: index int [new_size, 4], weight [new_size, 4].

  Keys' cubic with a = -0.5 on half-pixel centres, as TensorFlow's kernel
  (resize_bicubic_op.cc): float32 positions, fractions in steps of 1/1024, and
  taps outside the image dropped, the rest scaled to sum one. OpenCV's cubic
  has a = -0.75 and repeats the border.
  """
  scale = np.float32(size) / np.float32(new_size)
  half = np.float32(0.5)
  position = (np.arange(new_size, dtype=np.float32) + half) * scale - half
  floor = np.floor(position)
  fraction = np.rint((position - floor) * 1024) / 1024
  index = floor.astype(np.int64)[:, None] + np.arange(-1, 3)
  t = np.abs(fraction[:, None] - np.arange(-1, 3))  # Distance to the tap.
  near = (1.5 * t - 2.5) * t**2 + 1
  far = ((-0.5 * t + 2.5) * t - 4) * t + 2
  weight = np.where(t <= 1, near, far) * ((index >= 0) & (index < size))
  weight /= weight.sum(axis=1, keepdims=True)
  return np.clip(index, 0, size - 1), weight.astype(np.float32)


def _resize_rows(image: np.ndarray, height: int) -> np.ndarray:
  """Resamples the first axis of [H, W, 3] -> float32 [height, W, 3]."""
  index, weight = _cubic_taps(len(image), height)
  rows = image.reshape(len(image), -1)  # [H, W 3]
  out = np.empty((height, rows.shape[1]), np.float32)
  # Blocks keep the gathered taps in the cache: twice as fast as all at once.
  for start in range(0, height, 32):
    part = slice(start, start + 32)
    np.einsum("hk,hkw->hw", weight[part], rows[index[part]], out=out[part])
  return out.reshape(height, -1, 3)


def resize_bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """TensorFlow 2's bicubic `tf.image.resize`, not antialiased, as authors use.

  Args:
    image: uint8 [H, W, 3].
    height: of the result.
    width: of the result.

  Returns:
    float32 [height, width, 3] in [0, 1]; what the cubic overshoots is cut off.
  """
  rows = _resize_rows(image, height)
  # Both passes run over whole rows; single columns would be slow to gather.
  columns = _resize_rows(cv2.transpose(rows), width)
  return _clip(cv2.transpose(columns) / np.float32(255))


def _clip(image: np.ndarray) -> np.ndarray:
  """Clips the fresh array `image` to [0, 1], in place."""
  return np.clip(image, 0, 1, out=image)


def flip(image: np.ndarray) -> np.ndarray:
  """Mirrors `image` [H, W, 3] left and right."""
  return cv2.flip(image, 1)


def adjust_brightness(image: np.ndarray, delta: float) -> np.ndarray:
  """Adds `delta` to all of [H, W, 3] (as SimCLR v1)."""
  return _clip(image + np.float32(delta))


def multiply_brightness(image: np.ndarray, factor: float) -> np.ndarray:
  """Multiplies all of [H, W, 3] by `factor` (as SimCLR v2 and torchvision)."""
  return _clip(image * np.float32(factor))


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
  """Scales [H, W, 3] about each channel's mean (torchvision: mean gray)."""
  mean = np.array(cv2.mean(image)[:3])
  affine = np.column_stack([factor * np.eye(3), (1 - factor) * mean])
  return _clip(cv2.transform(image, affine))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
  """Multiplies S of HSV, which stays in [0, 1], for all of [H, W, 3]."""
  hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
  hsv[..., 1] = np.clip(hsv[..., 1] * factor, 0, 1)
  return _clip(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def adjust_hue(image: np.ndarray, delta: float) -> np.ndarray:
  """Turns H of HSV by `delta` (1 = a whole turn) for all of [H, W, 3]."""
  hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
  # OpenCV counts degrees; it takes more than 360 but nothing negative.
  hsv[..., 0] = hsv[..., 0] + delta % 1 * 360
  return _clip(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def to_grayscale(image: np.ndarray) -> np.ndarray:
  """Luma on all three channels of [H, W, 3]."""
  return _clip(cv2.transform(image, np.tile(_LUMA, (3, 1))))


def gaussian_blur(image: np.ndarray, sigma: float) -> np.ndarray:
  """Blurs [H, W, 3] with 2 floor(H / 20) + 1 taps a direction (App. B: 23).

  The image counts as zero outside, as in a padded convolution, so borders
  darken; the authors have it so.
  """
  radius = image.shape[0] // 20
  x = np.arange(-radius, radius + 1)
  taps = np.exp(-(x**2) / (2 * sigma**2))
  taps = (taps / taps.sum()).astype(np.float32)
  return _clip(
    cv2.sepFilter2D(image, -1, taps, taps, borderType=cv2.BORDER_CONSTANT)
  )


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
  """Inverts the values of [H, W, 3] that are not below `threshold`."""
  # |0 - x| below, |1 - x| above: three times as fast as np.where.
  return _clip(np.abs((image >= np.float32(threshold)) - image))


def apply_view(image: np.ndarray, draw, size: int) -> np.ndarray:
  """A view of uint8 [H, W, 3], not yet rounded: float32 [size, size, 3]."""
  y, x, h, w = draw.box
  out = resize_bicubic(image[y : y + h, x : x + w], size, size)
  if draw.flip:
    out = flip(out)
  jitter = (
    (adjust_brightness, draw.brightness),
    (adjust_contrast, draw.contrast),
    (adjust_saturation, draw.saturation),
    (adjust_hue, draw.hue),
    (multiply_brightness, draw.brightness),
  )
  if draw.jitter:
    for k in draw.order:
      op, value = jitter[k]
      out = op(out, value)
  if draw.grayscale:
    out = to_grayscale(out)
  if draw.blur:
    out = gaussian_blur(out, draw.sigma)
  if draw.solarize:
    out = solarize(out, draw.threshold)
  return out
