"""What the authors' host does, in tf.data: decode, crop and resize, no colours.

It is a yardstick for our input, on one thread each. Their window sampler and
their bicubic resize (dataset.py of the BYOL release) are written anew.
"""

import math
import time

import tensorflow as tf

_SECONDS = 6.0
_ASPECT = (3 / 4, 4 / 3)


def images_per_second(
  encoded: list[bytes], size: int, area: tuple[float, float]
) -> float:
  """Rate of one thread at two crops of each JPEG file.

  Args:
    encoded: JPEG files.
    size: of a crop, in pixels.
    area: least and largest share of the image that a crop covers.
  """

  def crop(data: tf.Tensor) -> tf.Tensor:
    shape = tf.io.extract_jpeg_shape(data)
    height, width = shape[0], shape[1]
    target = tf.random.uniform([], *area) * tf.cast(height * width, tf.float32)
    aspect = tf.exp(tf.random.uniform([], *map(math.log, _ASPECT)))
    w = tf.minimum(tf.cast(tf.round(tf.sqrt(target * aspect)), tf.int32), width)
    h = tf.minimum(
      tf.cast(tf.round(tf.sqrt(target / aspect)), tf.int32), height
    )
    y = tf.random.uniform([], 0, height - h + 1, tf.int32)
    x = tf.random.uniform([], 0, width - w + 1, tf.int32)
    window = tf.image.decode_and_crop_jpeg(data, [y, x, h, w], channels=3)
    resized = tf.image.resize(window, [size, size], "bicubic")
    return tf.clip_by_value(resized / 255, 0, 1)

  dataset = tf.data.Dataset.from_tensor_slices(encoded).repeat()
  dataset = dataset.map(lambda data: (crop(data), crop(data)))
  options = tf.data.Options()
  options.threading.private_threadpool_size = 1
  options.threading.max_intra_op_parallelism = 1
  options.autotune.enabled = False
  iterator = iter(dataset.with_options(options))
  for _ in range(len(encoded)):
    next(iterator)
  done, begun = 0, time.perf_counter()
  while time.perf_counter() - begun < _SECONDS:
    next(iterator)
    done += 1
  return done / (time.perf_counter() - begun)
