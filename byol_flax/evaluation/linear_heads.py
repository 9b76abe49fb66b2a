"""Classifiers on frozen representations, all in one array and one update."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.evaluation import features
from byol_flax.evaluation.encoder import Encoder
from byol_flax.models import initializers, resnet
from byol_flax.pretrain import metrics, schedules

_TOP = 5  # how many guesses are kept, for top-5


@dataclasses.dataclass(frozen=True)
class Head:
  """One classifier of a sweep.

  Attributes:
    learning_rate: per 256 images of a batch.
    regularised: whether its logits are regularised, as in Table 7.
  """

  learning_rate: float
  regularised: bool


@flax.struct.dataclass
class LinearState:
  """The state of all classifiers.

  Attributes:
    step: completed updates.
    weights: "kernel" [H, F, K] and "bias" [H, K].
    momentum: of the same shapes.
  """

  step: jax.Array
  weights: dict[str, jax.Array]
  momentum: dict[str, jax.Array]


def create_state(
  heads: int, width: int, num_classes: int, *, seed: int, dtype: Any
) -> LinearState:
  """Creates classifiers that all begin alike: biases 0, kernels as in Haiku.

  Args:
    heads: H.
    width: F, of a representation.
    num_classes: K.
    seed: of the kernels.
    dtype: of all arrays.
  """
  kernel = initializers.fan_in(
    jax.random.key(seed), (width, num_classes), dtype
  )
  weights = {
    "kernel": jnp.broadcast_to(kernel, (heads, width, num_classes)),
    "bias": jnp.zeros((heads, num_classes), dtype),
  }
  return LinearState(
    step=jnp.zeros((), jnp.int32),
    weights=weights,
    momentum=jax.tree.map(jnp.zeros_like, weights),
  )


def logits_of(weights: dict[str, jax.Array], y: jax.Array) -> jax.Array:
  """Logits [H, B, K] of representations [B, F]."""
  # By default TPUs would round the inputs to bfloat16.
  product = jnp.einsum("bf,hfk->hbk", y, weights["kernel"], precision="highest")
  return product + weights["bias"][:, None]


def clip(logits: jax.Array, alpha: float) -> jax.Array:
  """α·tanh(x/α), the soft clipping of Table 7."""
  return alpha * jnp.tanh(logits / alpha)


def head_losses(
  logits: jax.Array,
  labels: jax.Array,
  regularised: jax.Array,
  *,
  alpha: float,
  beta: float,
) -> jax.Array:
  """Loss of each head, [H]: the mean cross-entropy of the examples.

  If a head is regularised, its logits are clipped, and β times the mean of
  their squares is added (paper App. C.1).

  Args:
    logits: [H, B, K].
    labels: [B] int; an example with -1 does not count.
    regularised: [H] bool.
    alpha: α.
    beta: β.
  """
  flags = regularised[:, None, None]
  used = jnp.where(flags, clip(logits, alpha), logits)
  log_p = jax.nn.log_softmax(used)
  picked = jnp.take_along_axis(
    log_p, jnp.maximum(labels, 0)[None, :, None], axis=-1
  )[..., 0]
  size = jnp.where(flags[..., 0], jnp.mean(used**2, axis=-1), 0)
  each = beta * size - picked  # [H, B]
  return jax.vmap(metrics.labelled_mean, (0, None))(each, labels)


def make_step(
  encoder: Encoder,
  heads: Sequence[Head],
  *,
  decay: schedules.Schedule,
  momentum: float,
  alpha: float,
  beta: float,
) -> Callable[[LinearState, Any, Any], tuple[LinearState, dict[str, Any]]]:
  """Returns (state, variables of the encoder, batch) -> (state, metrics).

  Args:
    encoder: stays as it is, BatchNorm's averages too.
    heads: one for each classifier of the state.
    decay: step -> factor of every head's learning rate.
    momentum: Nesterov's.
    alpha: of `head_losses`.
    beta: of `head_losses`.
  """
  rates = np.array([head.learning_rate for head in heads])
  regularised = np.array([head.regularised for head in heads])

  def step(
    state: LinearState, variables: Any, batch: Any
  ) -> tuple[LinearState, dict[str, Any]]:
    y = resnet.represent(encoder.module, variables, batch["image"])

    def loss(weights: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
      losses = head_losses(
        logits_of(weights, y),
        batch["label"],
        jnp.asarray(regularised),
        alpha=alpha,
        beta=beta,
      )
      return jnp.sum(losses), losses

    grads, losses = jax.grad(loss, has_aux=True)(state.weights)
    rate = jnp.asarray(rates, y.dtype) * decay(state.step).astype(y.dtype)

    def move(w: jax.Array, g: jax.Array, m: jax.Array) -> jax.Array:
      return w - rate.reshape(-1, *[1] * (w.ndim - 1)) * (g + momentum * m)

    moved = jax.tree.map(lambda m, g: g + momentum * m, state.momentum, grads)
    weights = jax.tree.map(move, state.weights, grads, moved)
    # A head that diverges loses the sweep, but must not end it.
    shown = jnp.nan_to_num(losses, nan=1e30, posinf=1e30)
    report = {"train/loss": jnp.min(shown)} | {
      f"train/loss/{name_of(head)}": shown[i] for i, head in enumerate(heads)
    }
    return LinearState(state.step + 1, weights, moved), report

  return step


def name_of(head: Head) -> str:
  """Names a head everywhere, such as "lr0.2" or "lr0.2-regularised"."""
  return f"lr{head.learning_rate:g}" + "-regularised" * head.regularised


def best_of(logits: jax.Array) -> jax.Array:
  """Classes by falling logits, int32 [..., 5], of logits [..., K].

  There are fewer if there are fewer classes. If logits tie, the class with the
  smaller number comes first. Logits that are not finite, as those of a head
  that has diverged, name no class: they give -1.
  """
  _, best = jax.lax.top_k(logits, min(_TOP, logits.shape[-1]))
  finite = jnp.isfinite(logits).all(axis=-1, keepdims=True)
  return jnp.where(finite, best, -1).astype(jnp.int32)


def make_guess_fn(encoder: Encoder, mesh: Mesh) -> features.FeatureFn:
  """Returns a function that gives "guesses", int32 [B, H, 5].

  These are the classes with the highest logits, see `best_of`. With fewer than
  five classes there are fewer guesses. The
  variables are "encoder" and "weights".
  """

  def guess(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
    y = resnet.represent(encoder.module, variables["encoder"], images)
    logits = logits_of(variables["weights"], y)
    return {"guesses": jnp.swapaxes(best_of(logits), 0, 1)}

  return jax.jit(guess, out_shardings=sharding.split(mesh))


def accuracies(guesses: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Top-1 and top-5 of each head, [H, 2], over the examples with a label.

  Args:
    guesses: int [N, H, 5], or fewer than 5; -1 is always wrong.
    label: int [N]; -1 does not count.
  """
  known = label >= 0
  hit = guesses[known] == label[known, None, None]
  return np.stack([hit[..., 0].mean(axis=0), hit.any(axis=-1).mean(axis=0)], 1)
