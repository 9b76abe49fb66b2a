"""Operations on one image [H, W, 3]: NumPy and OpenCV, no state, no randomness.

Every operation takes and returns float32 in [0, 1] and clips as the authors do;
only `resize_bicubic` takes uint8. Numbers are theirs (augmentations.py,
dataset.py of the BYOL release), and so are the conventions of TensorFlow that
those files rest on: where OpenCV differs, the code says so.
"""

import math

import cv2
import numpy as np

from input_pipeline.errors import UsageError

# Grain's workers are the parallelism; threads inside each would only compete.
cv2.setNumThreads(0)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# tf.image.rgb_to_grayscale: ITU-R 601 luma, to four digits.
_LUMA = np.array([0.2989, 0.5870, 0.1140], np.float32)

Box = tuple[int, int, int, int]


def sample_crop(
  height: int,
  width: int,
  rng: np.random.Generator,
  area: tuple[float, float],
  aspect: tuple[float, float],
) -> Box:
  """Draws the window (y, x, h, w) of a random resized crop (dataset.py).

  One draw: a window larger than the image is cut to it, not drawn again, so on
  elongated images extreme draws lose area and aspect.

  Args:
    height: of the image.
    width: of the image.
    rng: gives four numbers, whatever the image.
    area: the range of h w / (height width), uniform.
    aspect: the range of w / h, log-uniform.
  """
  u_area, u_aspect, u_x, u_y = rng.random(4).tolist()
  target = height * width * (area[0] + u_area * (area[1] - area[0]))
  ratio = aspect[0] * (aspect[1] / aspect[0]) ** u_aspect
  w = min(max(round(math.sqrt(target * ratio)), 1), width)
  h = min(max(round(math.sqrt(target / ratio)), 1), height)
  # Scaled uniforms rather than rng.integers, which for an only choice draws
  # nothing and so would shift all later numbers.
  return int(u_y * (height - h + 1)), int(u_x * (width - w + 1)), h, w


def center_crop(height: int, width: int, ratio: float) -> Box:
  """Window (y, x, s, s) in the middle, s = ratio of the shorter side.

  At 0.875 this is "shorter side to 256, middle 224" (paper, C.1) in one
  resampling, as in dataset.py.
  """
  s = max(int(ratio * min(height, width)), 1)
  return (height - s + 1) // 2, (width - s + 1) // 2, s, s


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
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
    raise UsageError(
      "An image is uint8 [height, width, 3] (RGB): this one is "
      f"{image.dtype} {list(image.shape)}. Convert it where it is decoded."
    )
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
  """Adds `delta` to all of [H, W, 3] (as SimCLR v1; torchvision multiplies)."""
  return _clip(image + np.float32(delta))


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
