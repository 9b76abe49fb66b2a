"""The operations of `image_ops` with the signatures of `float_ops`."""

import numpy as np

from input_pipeline import image_ops


def on_image(op):
  """`op`, which changes planes [3, W, H], for an image [H, W, 3]."""

  def run(image, *values):
    planes = np.array(image.transpose(2, 1, 0), np.float32, order="C")
    out = op(planes, *values)
    out = planes if out is None else out
    return np.broadcast_to(out, planes.shape).transpose(2, 1, 0)

  return run


adjust_brightness = on_image(image_ops.adjust_brightness)
multiply_brightness = on_image(image_ops.multiply_brightness)
adjust_contrast = on_image(image_ops.adjust_contrast)
adjust_saturation = on_image(image_ops.adjust_saturation)
adjust_hue = on_image(image_ops.adjust_hue)
to_grayscale = on_image(image_ops.to_grayscale)
gaussian_blur = on_image(image_ops.gaussian_blur)
solarize = on_image(image_ops.solarize)


def resize_bicubic(image, height, width):
  """A square result only."""
  assert height == width
  box = (0, 0, *image.shape[:2])
  return image_ops.crop_planes(image, box, height).transpose(2, 1, 0)
