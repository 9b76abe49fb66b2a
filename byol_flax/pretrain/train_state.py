"""The state of a run: online and target network, each a Flax TrainState.

RNG keys are derived from the seed and never stored. `step` counts completed
updates and labels the checkpoint.
"""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax.training import train_state

from byol_flax.models import byol

# One object for all: to JAX, states with different objects differ in structure.
_NO_OPTIMIZER = optax.identity()


class TrainState(train_state.TrainState):
  """Flax's TrainState with BatchNorm's running averages."""

  batch_stats: Any

  @property
  def variables(self) -> dict[str, Any]:
    """What `network.apply` takes."""
    return {"params": self.params, "batch_stats": self.batch_stats}


class ByolState(flax.struct.PyTreeNode):
  """Everything that an update changes."""

  online: TrainState
  target: TrainState

  @property
  def step(self) -> Any:
    """Completed updates, [] int32."""
    return self.online.step


def create_byol_state(
  network: byol.ByolNetwork,
  tx: optax.GradientTransformation,
  *,
  seed: int,
  image_size: int,
  target_init: str,
) -> ByolState:
  """Initialises both networks; pure, so `jax.eval_shape` gives the shapes.

  Args:
    network: its parameters are made for images [B, V, image_size, image_size,
      3].
    tx: moves the online network. The target has no optimizer.
    seed: of the run.
    image_size: pixels.
    target_init: "independent" draws the target's parameters anew (the released
      code), "copy" starts it as the online network (the paper's pseudo-code;
      paper.md §10 row 3).
  """
  online = init_variables(network, 0, seed=seed, image_size=image_size)
  second = 0 if target_init == "copy" else 1
  target = init_variables(network, second, seed=seed, image_size=image_size)
  return join(network, tx, online, target)


def init_variables(
  network: byol.ByolNetwork,
  which: jax.Array | int,
  *,
  seed: int,
  image_size: int,
) -> Any:
  """Parameters and BatchNorm statistics of a new network.

  Args:
    network: made for images [B, V, image_size, image_size, 3].
    which: [] int, 0 or 1: which of two independent draws.
    seed: of the run.
    image_size: pixels.
  """
  key = jax.random.split(jax.random.key(seed))[which]
  images = jnp.zeros((1, 1, image_size, image_size, 3), jnp.uint8)
  return network.init(key, images, train=True)


def join(
  network: byol.ByolNetwork,
  tx: optax.GradientTransformation,
  online: Any,
  target: Any,
) -> ByolState:
  """Makes the state before the first update from both networks' variables."""

  def state(variables: Any, tx: optax.GradientTransformation) -> TrainState:
    params = variables["params"]
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      apply_fn=network.apply,
      params=params,
      tx=tx,
      opt_state=tx.init(params),
      batch_stats=variables["batch_stats"],
    )

  return ByolState(
    online=state(online, tx), target=state(target, _NO_OPTIMIZER)
  )


def update_target(
  target: TrainState, online: TrainState, decay: jax.Array, batch_stats: Any
) -> TrainState:
  """Moves the target towards the updated online network (paper eq. 1).

  ξ ← ξ + (1 - τ)(θ - ξ) for every parameter of the network. The running
  averages of BatchNorm are the target's own, not averaged (paper.md §1.3).

  Args:
    target: before the update.
    online: after the update.
    decay: τ, [] float.
    batch_stats: of the target's forward pass on this batch.
  """
  move = 1 - decay
  params = jax.tree.map(
    lambda xi, theta: xi + move.astype(xi.dtype) * (theta - xi),
    target.params,
    online.params,
  )
  return target.replace(
    step=target.step + 1, params=params, batch_stats=batch_stats
  )


def copied_target(target: TrainState, online: TrainState) -> TrainState:
  """The target where the online network predicts its own projections.

  That is a target network whose decay τ is 0 throughout (paper §5, Table 5a).

  Args:
    target: before the update.
    online: after the update.
  """
  return target.replace(
    step=target.step + 1, params=online.params, batch_stats=online.batch_stats
  )
