"""Encoders for the tests of dense tasks."""

import jax
import jax.numpy as jnp

from byol_flax.models import initializers, resnet

TYPES = {"dtype": jnp.float32, "param_dtype": jnp.float32}


def encoder(architecture, **changes):
  options = {
    "width": 1,
    "stem": "imagenet",
    "shortcut": "projection",
    "padding": "same",
    "zero_init_last": False,
    "recompute": False,
    "input_scaling": "imagenet",
    "kernel_init": initializers.fan_in,
    "norm": resnet.make_norm(decay=0.9, epsilon=1e-5, **TYPES),
    **TYPES,
  }
  return resnet.ResNet(architecture=architecture, **{**options, **changes})


def resnet50(**changes):
  return encoder(resnet.ARCHITECTURES["resnet50"], **changes)


def smallest(**changes):
  """Two groups of one block: 32 channels, an output stride of 2."""
  return encoder(
    resnet.Architecture(
      bottleneck=False, blocks=(1, 1), channels=(8, 32), stem_channels=4
    ),
    stem="small",
    **changes,
  )


def map_shapes(module, variables, size):
  """[h, w, C] of the map of each group, for the variables of a network."""
  maps = jax.eval_shape(
    lambda variables, images: module.apply(
      {name: tree["encoder"] for name, tree in variables.items()},
      images,
      train=False,
      method="feature_maps",
    ),
    variables,
    jax.ShapeDtypeStruct((1, 1, *size, 3), jnp.uint8),
  )
  return [x.shape[2:] for x in maps]
