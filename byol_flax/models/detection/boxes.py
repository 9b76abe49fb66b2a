"""Arithmetic of boxes: float32 [..., 4], x_min, y_min, x_max, y_max in pixels.

The edges are half-open and the origin is the image's top left corner, so the
width is x_max - x_min.
"""

import math

import jax
import jax.numpy as jnp

Weights = tuple[float, float, float, float]  # of dx, dy, dw, dh

# A box may grow to so many times its reference at most, so that the exponential
# of an early network is finite (detectron2: box_regression.py).
_LARGEST_GROWTH = 1000 / 16


def areas(boxes: jax.Array) -> jax.Array:
  """Areas [...] of boxes [..., 4], in square pixels."""
  x0, y0, x1, y1 = _edges(boxes)
  return (x1 - x0) * (y1 - y0)


def has_area(boxes: jax.Array) -> jax.Array:
  """Which boxes [..., 4] are wider and higher than 0: bool [...]."""
  x0, y0, x1, y1 = _edges(boxes)
  return (x1 > x0) & (y1 > y0)


def overlaps(some: jax.Array, others: jax.Array) -> jax.Array:
  """Intersection over union of boxes that are paired by broadcasting.

  Args:
    some: float [..., 4].
    others: float [..., 4].

  Returns:
    float [...], in [0, 1]; 0 where both boxes have no area.
  """
  left, top = (jnp.maximum(some[..., i], others[..., i]) for i in (0, 1))
  right, bottom = (jnp.minimum(some[..., i], others[..., i]) for i in (2, 3))
  common = jnp.maximum(right - left, 0) * jnp.maximum(bottom - top, 0)
  union = areas(some) + areas(others) - common
  return jnp.where(union > 0, common / jnp.where(union > 0, union, 1), 0)


def pairwise_overlaps(some: jax.Array, others: jax.Array) -> jax.Array:
  """Intersection over union [M, N] of boxes [M, 4] and boxes [N, 4]."""
  return overlaps(some[:, None], others[None])


def clip(boxes: jax.Array, size: jax.Array) -> jax.Array:
  """Cuts off what lies outside of an image.

  Args:
    boxes: float [N, 4].
    size: height and width, int [2].
  """
  limits = jnp.tile(size[::-1], 2).astype(boxes.dtype)
  return jnp.clip(boxes, 0, limits[None])


def encode(
  references: jax.Array, boxes: jax.Array, weights: Weights
) -> jax.Array:
  """How far boxes lie from references, as a network predicts it.

  Args:
    references: float [..., 4].
    boxes: float [..., 4].
    weights: factors of the four deltas, so that all vary by about 1.

  Returns:
    dx, dy, dw, dh, float [..., 4]: how far the centre moves, in widths and
    heights of the reference, and the logarithms of how much it grows. They are
    not finite where a width or height is 0.
  """
  x, y, w, h = _centred(references)
  to_x, to_y, to_w, to_h = _centred(boxes)
  deltas = (
    (to_x - x) / w,
    (to_y - y) / h,
    jnp.log(to_w / w),
    jnp.log(to_h / h),
  )
  return jnp.stack(
    [weight * d for weight, d in zip(weights, deltas, strict=True)], axis=-1
  )


def decode(
  references: jax.Array, deltas: jax.Array, weights: Weights
) -> jax.Array:
  """The boxes [..., 4] that `encode` makes these deltas of."""
  x, y, w, h = _centred(references)
  dx, dy, dw, dh = (deltas[..., i] / weights[i] for i in range(4))
  x, y = x + dx * w, y + dy * h
  limit = math.log(_LARGEST_GROWTH)
  w, h = (
    size * jnp.exp(jnp.minimum(d, limit)) for size, d in ((w, dw), (h, dh))
  )
  return jnp.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=-1)


def _edges(boxes: jax.Array) -> tuple[jax.Array, ...]:
  return tuple(boxes[..., i] for i in range(4))


def _centred(boxes: jax.Array) -> tuple[jax.Array, ...]:
  """x and y of the centre, width and height."""
  x0, y0, x1, y1 = _edges(boxes)
  w, h = x1 - x0, y1 - y0
  return x0 + w / 2, y0 + h / 2, w, h
