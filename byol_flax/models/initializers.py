"""How weights start, by the names that `model.initializer` may have."""

from typing import NamedTuple

import flax.linen as nn

Initializer = nn.initializers.Initializer

# σ = 1/sqrt(fan_in), cut at ±2σ and, unlike `lecun_normal`, not rescaled for
# the cut: 0.87962566 is the standard deviation that remains (paper.md §2.3).
fan_in: Initializer = nn.initializers.variance_scaling(
  0.87962566103423978**2, "fan_in", "truncated_normal"
)


class Initializers(NamedTuple):
  """Of the weights of a network; its biases start at 0."""

  convolution: Initializer
  linear: Initializer


INITIALIZERS = {
  "fan_in": Initializers(fan_in, fan_in),  # the authors'
  # Deviation sqrt(2 / fan_in), which keeps the size of activations through
  # ReLU (arXiv 1502.01852 §2.2). The paper says that BYOL works with it too
  # (paper.md §2.3).
  "he": Initializers(nn.initializers.he_normal(), nn.initializers.he_normal()),
  # Deviation 1/sqrt(fan_in) after the cut, TensorFlow's default, in google-
  # research/simclr resnet.py: conv2d_fixed_padding; and N(0, 0.01²), which does
  # not depend on fan_in, in model_util.py: linear_layer.
  "simclr": Initializers(
    nn.initializers.lecun_normal(), nn.initializers.normal(0.01)
  ),
}
