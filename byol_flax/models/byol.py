"""The network of BYOL: encoder, projector, predictor, online classifier."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from byol_flax.models import heads, layers, resnet
from byol_flax.models.initializers import INITIALIZERS, Initializer
from input_pipeline.errors import UsageError


@flax.struct.dataclass
class Outputs:
  """What the network returns for a batch of views.

  Attributes:
    representation: [B, V, F], y.
    projection: [B, V, D], z.
    prediction: [B, V, D], q(z).
    logits: [B, V, K] of the online classifier.
  """

  representation: jax.Array
  projection: jax.Array
  prediction: jax.Array
  logits: jax.Array


class ByolNetwork(nn.Module):
  """Online or target network; both have all parts (paper.md §1.3).

  Attributes:
    encoder: images, uint8 [B, V, H, W, 3], to representations [B, V, F].
    projector: [B, V, F] to [B, V, D].
    predictor: [B, V, D] to [B, V, D].
    num_classes: K of the online classifier; 0 leaves it out.
    classifier_init: initialiser of its weights.
    dtype: of activations.
    param_dtype: of parameters and outputs.
  """

  encoder: nn.Module
  projector: nn.Module
  predictor: nn.Module
  num_classes: int
  classifier_init: Initializer
  dtype: Any
  param_dtype: Any

  def setup(self) -> None:
    """Adds the online classifier where there are labels."""
    if self.num_classes:
      self.classifier = layers.Linear(
        self.num_classes,
        use_bias=True,
        kernel_init=self.classifier_init,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
      )

  def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
    """Maps images, uint8 [B, V, H, W, 3], to `Outputs`.

    `train` normalises with the statistics of this batch, separately for each
    view, and updates the running averages (collection "batch_stats").
    """
    representation = self.encoder(images, train=train)
    projection = self.projector(representation, train=train)
    prediction = self.predictor(projection, train=train)
    if self.num_classes:
      # The gradient stops here, so that labels never train the encoder
      # (paper.md §1.6).
      logits = self.classifier(jax.lax.stop_gradient(representation))
      logits = logits.astype(self.param_dtype)
    else:
      logits = jnp.zeros((*representation.shape[:-1], 0), self.param_dtype)
    return Outputs(representation, projection, prediction, logits)


def make_network(
  *,
  encoder: dict[str, Any],
  projector: dict[str, Any],
  predictor: dict[str, Any],
  batch_norm: dict[str, Any],
  initializer: str,
  input_scaling: str,
  num_classes: int,
  dtype: Any,
  param_dtype: Any = jnp.float32,
) -> ByolNetwork:
  """Builds the network of a config's `model` section.

  Args:
    encoder: arguments of `make_encoder`, without those of the whole network.
    projector: sizes and switches of `heads.MLP`.
    predictor: the same; its output size must be the projector's, unless it has
      no layers.
    batch_norm: `decay` and `epsilon`.
    initializer: of all weights, a key of `INITIALIZERS`.
    input_scaling: see `pixels.scale`.
    num_classes: K, 0 for data without labels.
    dtype: of activations.
    param_dtype: of parameters, statistics and outputs.

  Raises:
    UsageError: sizes that do not fit.
  """
  sizes = {head["output_size"] for head in (projector, predictor)}
  if predictor["layers"] and len(sizes) > 1:
    raise UsageError(
      "The predictor must predict projections: model.projector.output_size is "
      f"{projector['output_size']} and model.predictor.output_size is "
      f"{predictor['output_size']}; make them equal."
    )
  types = {"dtype": dtype, "param_dtype": param_dtype}
  norm = resnet.make_norm(**batch_norm, **types)
  linear = INITIALIZERS[initializer].linear
  shared = {"kernel_init": linear, "norm": norm, **types}
  return ByolNetwork(
    encoder=make_encoder(
      **encoder,
      initializer=initializer,
      input_scaling=input_scaling,
      norm=norm,
      **types,
    ),
    projector=heads.MLP(**projector, **shared),
    predictor=heads.MLP(**predictor, **shared),
    num_classes=num_classes,
    classifier_init=linear,
    **types,
  )


def make_encoder(
  *,
  architecture: str,
  width: float,
  stem: str,
  shortcut: str,
  padding: str,
  zero_init_last: bool,
  recompute: bool,
  initializer: str,
  input_scaling: str,
  norm: Any,
  dtype: Any,
  param_dtype: Any = jnp.float32,
) -> resnet.ResNet:
  """Builds the encoder of a config's `model` section.

  Args are those of `resnet.ResNet`; `architecture` is a name that
  `resnet.architecture_of` knows, and `initializer` a key of `INITIALIZERS`.

  Raises:
    UsageError: there is no such architecture, or not of that width.
  """
  shape = resnet.architecture_of(architecture)
  if (shape.stem_channels * width) % 4:
    raise UsageError(
      f"model.encoder.width is {width}; it must make "
      f"{shape.stem_channels} × width a multiple of 4, such as 1, 2 or 0.25."
    )
  return resnet.ResNet(
    architecture=shape,
    width=width,
    stem=stem,
    shortcut=shortcut,
    padding=padding,
    zero_init_last=zero_init_last,
    recompute=recompute,
    input_scaling=input_scaling,
    kernel_init=INITIALIZERS[initializer].convolution,
    norm=norm,
    dtype=dtype,
    param_dtype=param_dtype,
  )
