"""Groups of images that have BatchNorm statistics of their own.

`batch_norm.BatchNorm` keeps statistics apart along axis 1, the views. Dense
tasks have one view, so that axis can hold the groups. With one group the
statistics are those of the global batch; with a group for each device, each
device normalises by its own images, as programs do that do not synchronise.
BatchNorm's averages must then move once an update, however many groups there
are: `of_groups` makes it do so.
"""

import functools

import einops
import jax

from byol_flax.models import resnet


def of_groups(encoder: resnet.ResNet) -> resnet.ResNet:
  """The encoder, whose BatchNorm sees groups in place of views."""
  norm = functools.partial(encoder.norm, groups=True)
  return encoder.clone(norm=norm)


def grouped(x: jax.Array, groups: int) -> jax.Array:
  """[B, ...] -> [B / groups, groups, ...]; a group has neighbouring rows."""
  return einops.rearrange(x, "(v b) ... -> b v ...", v=groups)


def ungrouped(x: jax.Array) -> jax.Array:
  """The inverse of `grouped`: [b, v, ...] -> [v * b, ...]."""
  return einops.rearrange(x, "b v ... -> (v b) ...")
