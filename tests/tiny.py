"""What several test files share: the smallest network, and data of its size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from byol_flax.models import byol, heads, initializers, resnet
from byol_flax.pretrain import device_augment, objective
from byol_flax.pretrain.places import Place
from configs import byol as byol_config

SIZE = 8  # pixels
CLASSES = 4

BYOL = objective.Objective(**byol_config.get_config().objective)

stack_views = device_augment.make_views(Place.HOST, size=SIZE, multiplies=False)


def make_network(num_classes=CLASSES, dtype=jnp.float32):
  """BYOL with an encoder of one block, so that it compiles in a second."""
  types = {"dtype": dtype, "param_dtype": dtype}
  norm = resnet.make_norm(decay=0.9, epsilon=1e-5, **types)
  mlp = heads.MLP(
    layers=2,
    hidden_size=64,
    output_size=8,
    final_bias=False,
    final_norm=False,
    kernel_init=initializers.fan_in,
    norm=norm,
    **types,
  )
  return byol.ByolNetwork(
    encoder=resnet.ResNet(
      architecture=resnet.Architecture(
        bottleneck=False, blocks=(1,), channels=(8,), stem_channels=4
      ),
      width=1,
      stem="small",
      shortcut="projection",
      padding="same",
      zero_init_last=False,
      recompute=False,
      input_scaling="imagenet",
      kernel_init=initializers.fan_in,
      norm=norm,
      **types,
    ),
    projector=mlp,
    predictor=mlp.clone(),
    num_classes=num_classes,
    classifier_init=initializers.fan_in,
    **types,
  )


def init(module, x):
  """Variables of a module; one compilation, not one for each operation."""
  return jax.jit(functools.partial(module.init, train=True))(
    jax.random.key(0), x
  )


def batch(step, size=32):
  """A training batch, uint8 [size, 8, 8, 3], that depends on `step`."""
  rng = np.random.default_rng([7, step])
  shape = (size, SIZE, SIZE, 3)
  return {
    "view1": rng.integers(0, 256, shape, np.uint8),
    "view2": rng.integers(0, 256, shape, np.uint8),
    "label": rng.integers(0, CLASSES, size).astype(np.int32),
  }
