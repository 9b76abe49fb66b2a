"""ResNet encoders (post-activation, the stride in the 3×3 convolution).

Layout as in the authors' networks.py: SAME padding, no biases, and a
projection shortcut in the first block of every group (paper.md §2.1). Options
make it the layout of torchvision, so that its weights can be read.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from byol_flax import bounds
from byol_flax.models import batch_norm, layers, pixels
from byol_flax.models.initializers import Initializer
from input_pipeline.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Architecture:
  """Depth and shape of a ResNet at width 1.

  Attributes:
    bottleneck: whether a block has 1×1, 3×3 and 1×1 convolutions, or two 3×3.
    blocks: blocks in each group.
    channels: output channels of each group.
    stem_channels: output channels of the first convolution.
  """

  bottleneck: bool
  blocks: tuple[int, ...]
  channels: tuple[int, ...]
  stem_channels: int = 64


_BASIC = functools.partial(
  Architecture, bottleneck=False, channels=(64, 128, 256, 512)
)
_BOTTLENECK = functools.partial(
  Architecture, bottleneck=True, channels=(256, 512, 1024, 2048)
)
ARCHITECTURES = {  # paper.md §2.1
  # Not in the paper: the shortest of He et al.'s networks for images of few
  # pixels (arXiv 1512.03385 §4.2, n = 1).
  "resnet8": Architecture(
    bottleneck=False,
    blocks=(1, 1, 1),
    channels=(16, 32, 64),
    stem_channels=16,
  ),
  "resnet18": _BASIC(blocks=(2, 2, 2, 2)),
  "resnet34": _BASIC(blocks=(3, 4, 6, 3)),
  "resnet50": _BOTTLENECK(blocks=(3, 4, 6, 3)),
  "resnet101": _BOTTLENECK(blocks=(3, 4, 23, 3)),
  "resnet152": _BOTTLENECK(blocks=(3, 8, 36, 3)),
  "resnet200": _BOTTLENECK(blocks=(3, 24, 36, 3)),
}


def architecture_of(name: str) -> Architecture:
  """The architecture that a config names or spells out.

  Args:
    name: a key of `ARCHITECTURES`, or what `name_of` gives.

  Raises:
    UsageError: it is neither.
  """
  if name in ARCHITECTURES:
    return ARCHITECTURES[name]
  found = bounds.ARCHITECTURE.fullmatch(name)
  if not found:
    raise UsageError(f"There is no architecture {name!r}.")
  blocks, channels = (
    tuple(map(int, found[part].split("-"))) for part in ("blocks", "channels")
  )
  return Architecture(
    bottleneck=found["kind"] == "bottleneck",
    blocks=blocks,
    channels=channels,
    stem_channels=int(found["stem"]),
  )


def name_of(architecture: Architecture) -> str:
  """What a config calls it: a key of `ARCHITECTURES`, or its parts."""
  for name, known in ARCHITECTURES.items():
    if known == architecture:
      return name
  blocks, channels = (
    "-".join(map(str, numbers))
    for numbers in (architecture.blocks, architecture.channels)
  )
  kind = "bottleneck" if architecture.bottleneck else "basic"
  return f"{kind}:{blocks}:{channels}:{architecture.stem_channels}"


class Block(nn.Module):
  """Residual block; `norm` makes a BatchNorm and `conv` a convolution."""

  channels: int
  stride: int
  dilation: int  # of the 3×3 convolutions
  bottleneck: bool
  project: bool
  zero_init_last: bool
  norm: Any
  conv: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [B, V, H, W, C'] to [B, V, H/stride, W/stride, C]."""
    shortcut = x
    if self.project:
      shortcut = self.conv(
        self.channels, (1, 1), strides=self.stride, name="shortcut_conv"
      )(x)
      shortcut = self.norm(name="shortcut_norm")(shortcut, train=train)
    plan: tuple[tuple[int, int, int], ...]  # channels, kernel, stride
    if self.bottleneck:
      inner = self.channels // 4
      plan = ((inner, 1, 1), (inner, 3, self.stride), (self.channels, 1, 1))
    else:
      plan = ((self.channels, 3, self.stride), (self.channels, 3, 1))
    for i, (channels, kernel, stride) in enumerate(plan):
      last = i == len(plan) - 1
      x = self.conv(
        channels,
        (kernel, kernel),
        strides=stride,
        dilation=self.dilation if kernel > 1 else 1,
        name=f"conv{i}",
      )(x)
      zero = self.zero_init_last and last
      init = nn.initializers.zeros if zero else nn.initializers.ones
      x = self.norm(name=f"norm{i}", scale_init=init)(x, train=train)
      x = x + shortcut if last else x
      x = nn.relu(x)
    return x


class ResNet(nn.Module):
  """Encoder f: images to representations.

  It scales the images itself, so that none of its users can forget to.

  Attributes:
    architecture: depth and shape.
    width: multiplier of all channels.
    stem: "imagenet" (7×7 stride 2 and max-pool) or "small" (3×3 stride 1, no
      pool: SimCLR App. B.9, for images of 32 pixels or so).
    shortcut: "projection" in the first block of every group (the authors), or
      "identity" where stride and channels allow it (torchvision).
    padding: of convolutions and pooling, see `layers.pads`.
    zero_init_last: last BatchNorm scale of each block starts at 0 (the
      released code) instead of 1 (the paper's runs; paper.md §10 row 1).
    recompute: keep only the input of each block for the gradient and compute
      the rest again: less memory, about a third more work, equal numbers.
    input_scaling: "imagenet" or "unit", see `pixels.scale`.
    kernel_init: initialiser of the convolutions.
    norm: makes a BatchNorm, called as norm(name=..., scale_init=...).
    dtype: of activations.
    param_dtype: of weights and of the representation.
    dilate_last: leave the last group at the size of the one before, with its
      3×3 convolutions dilated by 2 to see as far: an output stride of 16 in
      place of 32, for segmentation (paper.md §7.1). The weights are the same.
  """

  architecture: Architecture
  width: float
  stem: str
  shortcut: str
  padding: str
  zero_init_last: bool
  recompute: bool
  input_scaling: str
  kernel_init: Initializer
  norm: Any
  dtype: Any
  param_dtype: Any
  dilate_last: bool = False

  def _widened(self, channels: int) -> int:
    return int(channels * self.width)

  @property
  def groups(self) -> range:
    """Numbers of the groups of blocks, from 0."""
    return range(len(self.architecture.blocks))

  @property
  def output_stride(self) -> int:
    """Pixels of the image from one place of the last map to the next."""
    stem = 1 if self.stem == "small" else 4
    return int(stem * 2 ** (len(self.groups) - 1 - int(self.dilate_last)))

  @property
  def channels(self) -> int:
    """Of the last map, which is also F of a representation."""
    return self._widened(self.architecture.channels[-1])

  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    """Maps images, uint8 [B, V, H, W, 3], to representations [B, V, F]."""
    x = self.feature_maps(images, train=train)[-1]
    return jnp.mean(x.astype(self.param_dtype), axis=(2, 3))  # [B, V, F]

  @nn.compact
  def feature_maps(
    self, x: jax.Array, *, train: bool, groups: range | None = None
  ) -> list[jax.Array]:
    """The maps that groups of blocks give, each [B, V, h, w, C].

    A detector calls this twice: for all groups but the last on images, and for
    the last one on what it cuts out of their map.

    Args:
      x: images, uint8 [B, V, H, W, 3], if the groups begin with 0; otherwise
        the map of the group before them.
      train: whether BatchNorm takes the statistics of this batch.
      groups: some that follow each other; None for all.
    """
    chosen = self.groups if groups is None else groups
    conv = functools.partial(
      layers.Conv,
      padding=self.padding,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    if chosen[0] == 0:
      x = self._stem(x, conv, train)
    maps = []
    for group in chosen:
      x = self._group(group, x, conv, train)
      maps.append(x)
    return maps

  @nn.nowrap
  def _stem(self, images: jax.Array, conv: Any, train: bool) -> jax.Array:
    x = pixels.scale(images, self.input_scaling, self.param_dtype)
    small = self.stem == "small"
    x = conv(
      self._widened(self.architecture.stem_channels),
      (3, 3) if small else (7, 7),
      strides=1 if small else 2,
      name="stem_conv",
    )(x.astype(self.dtype))
    norm = self.norm(name="stem_norm")
    # ReLU keeps the order of values, so it may follow the pooling.
    pool = functools.partial(max_pool, padding=self.padding)
    return nn.relu(norm(x, train=train, max_pool=None if small else pool))

  @nn.nowrap
  def _group(
    self, group: int, x: jax.Array, conv: Any, train: bool
  ) -> jax.Array:
    # `train`, argument 2 of a block, is not an array.
    block = nn.remat(Block, static_argnums=(2,)) if self.recompute else Block
    channels = self._widened(self.architecture.channels[group])
    dilated = self.dilate_last and group == self.groups[-1]
    for i in range(self.architecture.blocks[group]):
      reduces = group > 0 and i == 0  # if it is not dilated
      same_shape = not reduces and x.shape[-1] == channels
      x = block(
        channels=channels,
        stride=2 if reduces and not dilated else 1,
        dilation=2 if dilated else 1,
        bottleneck=self.architecture.bottleneck,
        project=i == 0 and (self.shortcut == "projection" or not same_shape),
        zero_init_last=self.zero_init_last,
        norm=self.norm,
        conv=conv,
        name=f"group{group}_block{i}",
      )(x, train)
    return x


def represent(module: ResNet, variables: Any, images: jax.Array) -> jax.Array:
  """Representations [B, F] of images, uint8 [B, S, S, 3].

  BatchNorm uses its running averages, so that an example's representation does
  not depend on the batch it is in.
  """
  y: Any = module.apply(variables, images[:, None], train=False)
  return jnp.squeeze(y, axis=1)


def max_pool(x: jax.Array, *, padding: str) -> jax.Array:
  """The stem's pooling: [B, V, H, W, C] -> [B, V, H/2, W/2, C], rounded up."""
  pads = ((0, 0), *layers.pads(x.shape[2:4], (3, 3), 2, padding))
  return nn.max_pool(x, (1, 3, 3), strides=(1, 2, 2), padding=pads)


def make_norm(
  *, decay: float, epsilon: float, dtype: Any, param_dtype: Any
) -> Any:
  """Returns the BatchNorm constructor that all parts of a network share."""
  return functools.partial(
    batch_norm.BatchNorm,
    decay=decay,
    epsilon=epsilon,
    dtype=dtype,
    param_dtype=param_dtype,
  )
