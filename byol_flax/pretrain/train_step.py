"""One update of BYOL (paper.md §1.7): gradient, LARS, target average."""

from collections.abc import Callable, Mapping
from typing import Any

import einops
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from byol_flax import sharding, trees
from byol_flax.models import byol
from byol_flax.pretrain import objective, schedules
from byol_flax.pretrain.objective import Metrics
from byol_flax.pretrain.train_state import (
  ByolState,
  copied_target,
  update_target,
)

Batch = Mapping[str, jax.Array]
StepFn = Callable[[ByolState, Batch], tuple[ByolState, Metrics]]

# On CPUs XLA's convolutions run some ten times slower in a loop, so up to so
# many micro-batches are written out one after another; with more of them the
# compilation would take longer than it saves.
_UNROLLED_ON_CPUS = 32

_gradient = jax.grad(objective.objective, argnums=2, has_aux=True)


def _whole(params: Any, dtype: Any, mesh: Mesh) -> Any:
  """Weights as the networks take them: gathered, in the activations' type.

  Matrices and kernels are cast before they are gathered, once for all their
  uses. Biases and BatchNorm parameters stay in their own type.
  """
  return jax.tree.map(
    lambda x: jax.lax.with_sharding_constraint(
      x.astype(dtype) if x.ndim > 1 else x, sharding.replicated(mesh)
    ),
    params,
  )


def _in_type_of(gradient_dtype: str, weights: Any, params: Any) -> Any:
  """The same weights, in the type that their gradients are to have.

  If that is the type of the parameters, the layers cast the weights back to
  that of the activations; the compiler removes both casts.
  """
  if gradient_dtype == "activations":
    return weights
  return jax.tree.map(lambda w, p: w.astype(p.dtype), weights, params)


def _parts(grads: Any, params: Any, mesh: Mesh) -> Any:
  """Gradients as the update takes them: each device has its part of the sum."""
  return jax.tree.map(
    lambda g, p: jax.lax.with_sharding_constraint(
      g, sharding.cut(mesh, g.shape)
    ).astype(p.dtype),
    grads,
    params,
  )


def _summed(of_part: Callable[[jax.Array], Any], parts: jax.Array) -> Any:
  """Sum of what `of_part` makes of each of `parts` [A, ...]."""
  found = jax.lax.map(of_part, parts)
  return jax.tree.map(lambda x: jnp.sum(x, axis=0), found)


def _make_gradient(
  network: byol.ByolNetwork,
  settings: objective.Objective,
  *,
  accumulation_steps: int,
  gradient_dtype: str,
  mesh: Mesh,
) -> Callable[[ByolState, jax.Array, jax.Array], tuple[Any, Any, Metrics]]:
  """Returns (state, images, labels) -> gradient, running averages, metrics.

  Gradient and metrics are means over the micro-batches, whose running averages
  move one after the other. Where only some images have labels, these may lie
  unevenly; what concerns them is a mean over those of the whole batch.
  """
  on_cpus = mesh.devices.flat[0].platform == "cpu"

  def gradient(
    state: ByolState, images: jax.Array, labels: jax.Array
  ) -> tuple[Any, Any, Metrics]:
    online, target = state.online, state.target
    # Neighbours go to different micro-batches, so that a device that holds
    # consecutive rows keeps an equal part of every micro-batch.
    micro_batches = jax.tree.map(
      lambda x: einops.rearrange(
        x, "(b a) ... -> a b ...", a=accumulation_steps
      ),
      (images, labels),
    )
    online_params = _whole(online.params, network.dtype, mesh)
    target_params = _whole(target.params, network.dtype, mesh)
    batch_stats = {"online": online.batch_stats, "target": target.batch_stats}
    sums = labelled = None
    if accumulation_steps > 1:
      count = jnp.maximum(jnp.sum(labels >= 0), 1)
      labelled = count / accumulation_steps
    if settings.optimal_predictor and accumulation_steps > 1:
      networks = (online_params, target_params, batch_stats)
      sums = _summed(
        lambda images: objective.moments(network, settings, *networks, images),
        micro_batches[0],
      )

    def accumulate(
      carry: tuple[Any, Any], micro_batch: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[Any, Any], Metrics]:
      batch_stats, total = carry
      weights = _in_type_of(gradient_dtype, online_params, online.params)
      grads, (batch_stats, report) = _gradient(
        network,
        settings,
        weights,
        target_params,
        batch_stats,
        *micro_batch,
        sums,
        labelled,
      )
      grads = _parts(grads, online.params, mesh)
      return (batch_stats, jax.tree.map(jnp.add, total, grads)), report

    zeros = jax.tree.map(jnp.zeros_like, online.params)
    if accumulation_steps == 1:
      # No loop, see `_UNROLLED_ON_CPUS`.
      only = jax.tree.map(lambda x: x[0], micro_batches)
      (batch_stats, total), reports = accumulate((batch_stats, zeros), only)
    else:
      (batch_stats, total), reports = jax.lax.scan(
        accumulate,
        (batch_stats, zeros),
        micro_batches,
        unroll=on_cpus and accumulation_steps <= _UNROLLED_ON_CPUS,
      )
    grads = jax.tree.map(lambda g: g / accumulation_steps, total)
    return grads, batch_stats, jax.tree.map(jnp.mean, reports)

  return gradient


def make_train_step(
  network: byol.ByolNetwork,
  *,
  settings: objective.Objective,
  learning_rate: schedules.Schedule,
  target_decay: schedules.Schedule,
  accumulation_steps: int,
  gradient_dtype: str,
  mesh: Mesh,
  make_views: Callable[[Batch], jax.Array],
) -> StepFn:
  """Returns (state, batch) -> (state, metrics), to be jitted.

  The batch holds "label", int32 [B], with B the global batch, and what
  `make_views` turns into views, uint8 [B, 2, H, W, 3]. With accumulation these
  are cut into `accumulation_steps` micro-batches; each has its own BatchNorm
  statistics, their gradients are averaged, and optimizer, target and schedules
  move once (paper.md §9.1). Negatives are those of the micro-batch; an optimal
  predictor is that of the whole batch, for which the networks run twice.

  On the devices of `mesh` the state lies as `sharding.cut` says: the networks
  gather the weights, and each device moves its part. Gradients are added up in
  the type of "params" or "activations", whichever `gradient_dtype` names.

  Metrics are global scalars, named by the vocabulary: loss and gradient before
  the update, the τ and learning rate that it used, and the distance after it.
  """
  gradient = _make_gradient(
    network,
    settings,
    accumulation_steps=accumulation_steps,
    gradient_dtype=gradient_dtype,
    mesh=mesh,
  )

  def train_step(state: ByolState, batch: Batch) -> tuple[ByolState, Metrics]:
    grads, batch_stats, report = gradient(
      state, make_views(batch), batch["label"]
    )
    step, decay = state.step, jnp.zeros(())
    online = state.online.apply_gradients(
      grads=grads, batch_stats=batch_stats["online"]
    )
    if settings.has_target_network:
      decay = target_decay(step)
      target = update_target(state.target, online, decay, batch_stats["target"])
    else:
      target = copied_target(state.target, online)
    report = {
      **report,
      "train/grad_norm": jnp.sqrt(trees.squared_norm(grads)),
      "train/learning_rate": learning_rate(step),
      "train/target_decay": decay,
      "train/online_target_distance": trees.relative_distance(
        target.params, online.params
      ),
    }
    return ByolState(online=online, target=target), report

  return train_step
