"""Augmentation on the devices, in the jitted step, from draws of the host.

The operations are those of `input_pipeline.image_ops`. Each takes one image,
float32 [S, S, 3] in [0, 1], and `make_views` maps them over the batch. Nothing
here is random: the draws come from the input pipeline.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import ArrayLike

from byol_flax import sharding
from byol_flax.pretrain.places import Place
from input_pipeline import augment

Batch = Mapping[str, jax.Array]


def abstract_batch(
  mesh: Mesh,
  place: Place,
  *,
  batch_size: int,
  size: int,
  resident: tuple[int, ...] | None = None,
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and shardings of a training batch.

  Args:
    mesh: the devices among which the rows are cut.
    place: where the views are made.
    batch_size: B, global.
    size: S, in pixels.
    resident: shape of the images that lie on the devices, [N, H, W, 3].
  """

  def rows(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(
      (batch_size, *shape), dtype, sharding=sharding.split(mesh)
    )

  batch = {"label": rows(jnp.int32)}
  if place is Place.RESIDENT:
    batch["images"] = jax.ShapeDtypeStruct(
      resident or (), jnp.uint8, sharding=sharding.replicated(mesh)
    )
    batch |= {"index": rows(jnp.int32), "turned": rows(jnp.bool_)}
  else:
    views = rows(jnp.uint8, size, size, 3)
    batch |= {"view1": views, "view2": views}
  if place is not Place.HOST:
    batch["draw"] = rows(jnp.float32, 2, augment.DRAW_SIZE)
  return batch


def make_views(
  place: Place, *, size: int, multiplies: bool
) -> Callable[[Batch], jax.Array]:
  """Returns batch -> views, uint8 [B, 2, S, S, 3], view1 and view2.

  Args:
    place: says what the batch holds: finished views; crops, whose colours are
      changed here; or the numbers of images that lie on the devices, which are
      cropped here, too.
    size: S, in pixels.
    multiplies: whether a view has the brightness_mode "multiply".
  """

  def finished(batch: Batch) -> jax.Array:
    return jnp.stack([batch["view1"], batch["view2"]], axis=1)

  def color(crop: jax.Array, packed: jax.Array) -> jax.Array:
    image = crop.astype(jnp.float32) / 255
    return _to_uint8(change_colors(image, augment.unpack(packed), multiplies))

  def colored(batch: Batch) -> jax.Array:
    return jax.vmap(jax.vmap(color))(finished(batch), batch["draw"])

  def view(
    images: jax.Array, index: jax.Array, turned: jax.Array, packed: jax.Array
  ) -> jax.Array:
    draw = augment.unpack(packed)
    image = crop(images[index], turned, draw, size)
    return _to_uint8(change_colors(image, draw, multiplies))

  def cropped(batch: Batch) -> jax.Array:
    views = jax.vmap(view, in_axes=(None, None, None, 0))
    return jax.vmap(views, in_axes=(None, 0, 0, 0))(
      batch["images"], batch["index"], batch["turned"], batch["draw"]
    )

  return {
    Place.HOST: finished,
    Place.ACCELERATOR: colored,
    Place.RESIDENT: cropped,
  }[place]


def crop(
  image: jax.Array, turned: ArrayLike, draw: augment.ViewDraw, size: int
) -> jax.Array:
  """Bicubic window of a padded image, mirrored where the draw says so.

  Args:
    image: uint8 [H, W, 3].
    turned: bool [], whether it is stored transposed.
    draw: box and flip, in the coordinates of the image as it was.
    size: S.

  Returns:
    float32 [S, S, 3].
  """
  height, width = image.shape[:2]
  y, x, h, w = draw.box
  # The rows of a transposed image are the columns of the draw.
  rows = jnp.where(turned, x, y), jnp.where(turned, w, h)
  columns = jnp.where(turned, y, x), jnp.where(turned, h, w)
  out = jnp.einsum(
    "sh,hwc,tw->stc",
    resampling(*rows, size, height),
    image.astype(jnp.float32) / 255,
    resampling(*columns, size, width),
    precision="highest",
  )
  out = jnp.where(turned, out.swapaxes(0, 1), out)
  out = jnp.where(draw.flip, out[:, ::-1], out)
  return jnp.clip(out, 0, 1)


def resampling(
  start: ArrayLike, length: ArrayLike, size: int, full: int
) -> jax.Array:
  """Weights of `image_ops.taps` as a matrix, float32 [size, full].

  Args:
    start: [] float32, where the window begins.
    length: [] float32, of the window.
    size: of the result.
    full: length of the axis in which the window lies.
  """
  output = jnp.arange(size, dtype=jnp.float32)[:, None]
  position = (output + 0.5) * (length / size) - 0.5
  floor = jnp.floor(position)
  fraction = jnp.round((position - floor) * 1024) / 1024
  source = jnp.arange(full, dtype=jnp.float32)[None, :] - start
  t = jnp.abs(source - floor - fraction)  # [size, full], distance to the tap
  near = (1.5 * t - 2.5) * t**2 + 1
  far = ((-0.5 * t + 2.5) * t - 4) * t + 2
  weight = jnp.where(t <= 1, near, jnp.where(t < 2, far, 0))
  weight = jnp.where((source >= 0) & (source < length), weight, 0)
  return weight / jnp.sum(weight, axis=-1, keepdims=True)


def change_colors(
  image: jax.Array, draw: augment.ViewDraw, multiplies: bool
) -> jax.Array:
  """Applies all of a view's operations but the crop to float32 [S, S, 3].

  Only if `multiplies` may the draw multiply the brightness.
  """
  ops = [  # in the order of `augment.JITTER_OPS`
    lambda x: adjust_brightness(x, draw.brightness),
    lambda x: adjust_contrast(x, draw.contrast),
    lambda x: adjust_saturation(x, draw.saturation),
    lambda x: adjust_hue(x, draw.hue),
  ]
  if multiplies:
    ops.append(lambda x: multiply_brightness(x, draw.brightness))
  jittered = image
  for k in draw.order:
    # Mapped over images, each with its own order, this computes all ops.
    jittered = jax.lax.switch(jnp.asarray(k, jnp.int32), ops, jittered)
  out = jnp.where(draw.jitter, jittered, image)
  out = jnp.where(draw.grayscale, to_grayscale(out), out)
  out = jnp.where(draw.blur, gaussian_blur(out, draw.sigma), out)
  return jnp.where(draw.solarize, solarize(out, draw.threshold), out)


def adjust_brightness(image: jax.Array, delta: ArrayLike) -> jax.Array:
  """Adds `delta` [] to all of [S, S, 3]."""
  return jnp.clip(image + delta, 0, 1)


def multiply_brightness(image: jax.Array, factor: ArrayLike) -> jax.Array:
  """Multiplies all of [S, S, 3] by `factor` []."""
  return jnp.clip(image * factor, 0, 1)


def adjust_contrast(image: jax.Array, factor: ArrayLike) -> jax.Array:
  """Scales [S, S, 3] about each channel's mean by `factor` []."""
  mean = jnp.mean(image, axis=(0, 1), keepdims=True)
  return jnp.clip(factor * (image - mean) + mean, 0, 1)


def adjust_saturation(image: jax.Array, factor: ArrayLike) -> jax.Array:
  """Multiplies S of HSV, which stays in [0, 1], by `factor` []: [S, S, 3]."""
  value = jnp.max(image, axis=-1, keepdims=True)
  chroma = value - jnp.min(image, axis=-1, keepdims=True)
  # V and H stay, so every channel moves along a line towards V.
  times = jnp.minimum(factor, value / jnp.maximum(chroma, 1e-9))
  return jnp.clip(value - (value - image) * times, 0, 1)


def adjust_hue(image: jax.Array, delta: ArrayLike) -> jax.Array:
  """Turns H of HSV by `delta` [], 1 = a whole turn: [S, S, 3]."""
  red, green, blue = (image[..., c] for c in range(3))
  value = jnp.max(image, axis=-1)
  chroma = value - jnp.min(image, axis=-1)
  # The hue is in sixths of a turn; among equal channels the first counts as
  # the largest.
  is_red, is_green = red == value, green == value
  edge = jnp.where(
    is_red, green - blue, jnp.where(is_green, blue - red, red - green)
  )
  start = jnp.where(is_red, 0.0, jnp.where(is_green, 2.0, 4.0))
  hue = edge / jnp.maximum(chroma, 1e-9) + start + 6 * delta

  def channel(offset: float) -> jax.Array:
    at = jnp.mod(hue + offset, 6)
    return value - chroma * jnp.clip(jnp.minimum(at, 4 - at), 0, 1)

  return jnp.clip(jnp.stack([channel(5), channel(3), channel(1)], -1), 0, 1)


def to_grayscale(image: jax.Array) -> jax.Array:
  """Luma on all channels of [S, S, 3]."""
  red, green, blue = (image[..., c : c + 1] for c in range(3))
  gray = 0.2989 * red + 0.5870 * green + 0.1140 * blue
  return jnp.broadcast_to(gray, image.shape)


def gaussian_blur(image: jax.Array, sigma: ArrayLike) -> jax.Array:
  """Blurs [S, S, 3] by `sigma` [], as two products of matrices."""
  size = len(image)
  radius = size // 20
  place = jnp.arange(size)

  def taps(distance: jax.Array) -> jax.Array:
    taps = jnp.exp(-(distance**2) / (2 * sigma**2))
    return jnp.where(jnp.abs(distance) <= radius, taps, 0)

  total = jnp.sum(taps(jnp.arange(-radius, radius + 1)))
  kernel = taps(place[:, None] - place[None, :]) / total  # [S, S]
  return jnp.einsum(
    "sh,hwc,tw->stc", kernel, image, kernel, precision="highest"
  )


def solarize(image: jax.Array, threshold: ArrayLike) -> jax.Array:
  """Inverts the values of [S, S, 3] from `threshold` [] on."""
  return jnp.where(image >= threshold, 1 - image, image)


def _to_uint8(image: jax.Array) -> jax.Array:
  """Rounds as the host does, so that the networks see the same."""
  return jnp.floor(255 * image + 0.5).astype(jnp.uint8)
