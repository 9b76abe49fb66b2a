"""How weights start."""

import flax.linen as nn

# σ = 1/sqrt(fan_in), cut at ±2σ and, unlike `lecun_normal`, not rescaled for
# the cut: 0.87962566 is the standard deviation that remains (paper.md §2.3).
fan_in = nn.initializers.variance_scaling(
  0.87962566103423978**2, "fan_in", "truncated_normal"
)
