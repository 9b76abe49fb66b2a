"""LARS as BYOL's authors wrote it (paper §3.3; their utils/optimizers.py)."""

from typing import Any

import jax
import optax

from byol_flax import trees
from byol_flax.pretrain import schedules


def lars(
  learning_rate: schedules.Schedule,
  *,
  weight_decay: float,
  momentum: float,
  trust_coefficient: float,
  projector_multiplier: float = 1.0,
  predictor_multiplier: float = 1.0,
) -> optax.GradientTransformation:
  """LARS with the learning rate outside the momentum.

  For a weight w with gradient g, and λ, η, μ of the arguments:

    u = g + λ w;  u ← η |w| / |u| · u;  m ← μ m + u;  w ← w - lr · m

  The ratio is 1 where |w| or |u| is 0. Biases and BatchNorm parameters take
  neither decay nor ratio. `optax.lars` is another rule: it multiplies by the
  learning rate before the momentum, which differs as soon as the rate changes.

  Args:
    learning_rate: step -> rate.
    weight_decay: λ.
    momentum: μ, heavy ball.
    trust_coefficient: η.
    projector_multiplier: of the updates of all that is in the projector, μ in
      App. I.
    predictor_multiplier: the same for the predictor, λ in App. I.

  Returns:
    An optax transformation that needs the parameters in `update`.
  """
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask=trees.is_matrix),
    optax.masked(
      optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient),
      trees.is_matrix,
    ),
    optax.trace(decay=momentum),
    optax.scale_by_learning_rate(learning_rate),
    *_multiplied("projector", projector_multiplier),
    *_multiplied("predictor", predictor_multiplier),
  )


def _multiplied(
  part: str, multiplier: float
) -> tuple[optax.GradientTransformation, ...]:
  """Multiplies the updates of one part of the network; nothing if by 1."""
  if multiplier == 1:
    return ()

  def belongs(params: dict[str, Any]) -> dict[str, Any]:
    return {
      name: jax.tree.map(lambda _, here=name == part: here, tree)
      for name, tree in params.items()
    }

  return (optax.masked(optax.scale(multiplier), belongs),)
