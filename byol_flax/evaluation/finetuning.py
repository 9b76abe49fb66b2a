"""Trains encoder and classifier together on labels (paper App. C.1, D.3)."""

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.evaluation import features, linear_heads
from byol_flax.models import initializers, resnet
from byol_flax.pretrain import metrics


@flax.struct.dataclass
class FinetuneState:
  """A network that classifies.

  Attributes:
    step: completed updates.
    params: "encoder", and "classifier" with "kernel" [F, K] and "bias" [K].
    batch_stats: "encoder", BatchNorm's averages.
    momentum: has the shapes of `params`.
  """

  step: jax.Array
  params: dict[str, Any]
  batch_stats: dict[str, Any]
  momentum: dict[str, Any]


def create_state(
  variables: Any, width: int, num_classes: int, *, seed: int, dtype: Any
) -> FinetuneState:
  """Puts a new classifier on a trained encoder.

  Args:
    variables: "params" and "batch_stats" of the encoder.
    width: F, of a representation.
    num_classes: K.
    seed: of the classifier's kernel; its bias is 0.
    dtype: of the classifier.
  """
  kernel = initializers.fan_in(
    jax.random.key(seed), (width, num_classes), dtype
  )
  params = {
    "encoder": variables["params"],
    "classifier": {"kernel": kernel, "bias": jnp.zeros(num_classes, dtype)},
  }
  return FinetuneState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats={"encoder": variables["batch_stats"]},
    momentum=jax.tree.map(jnp.zeros_like, params),
  )


def forward(
  module: resnet.ResNet,
  params: Any,
  batch_stats: Any,
  images: jax.Array,
  *,
  train: bool,
) -> tuple[jax.Array, Any]:
  """Logits [B, K] of images, uint8 [B, S, S, 3], and BatchNorm's averages.

  `train` normalises by the statistics of the whole batch, wherever its rows
  lie, and moves the averages.
  """
  found: Any = module.apply(
    {"params": params["encoder"], "batch_stats": batch_stats["encoder"]},
    images[:, None],
    train=train,
    mutable=["batch_stats"],
  )
  y, changed = found
  head = params["classifier"]
  logits = jnp.matmul(y[:, 0], head["kernel"], precision="highest")
  return logits + head["bias"][None], {"encoder": changed["batch_stats"]}


def cross_entropy(
  logits: jax.Array, labels: jax.Array, smoothing: float
) -> jax.Array:
  """Loss [B] against labels that are smoothed over the classes.

  Args:
    logits: [B, K].
    labels: int [B]; the loss of an example with -1 means nothing.
    smoothing: share of a label that goes to all classes alike, in [0, 1).
  """
  log_p = jax.nn.log_softmax(logits)
  own = jnp.take_along_axis(log_p, jnp.maximum(labels, 0)[:, None], axis=-1)
  return -((1 - smoothing) * own[:, 0] + smoothing * jnp.mean(log_p, axis=-1))


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Loss [B, K] of a sigmoid for each class by itself.

  Labels are int [B, K]: 1 if an image has the class, 0 if not; the loss where
  they are -1 means nothing.
  """
  sign = jnp.where(labels > 0, 1, -1).astype(logits.dtype)
  return jax.nn.softplus(-sign * logits)


# (state, batch, learning rate [], weight decay []) -> (state, metrics).
Step = Callable[
  [FinetuneState, Any, jax.Array, jax.Array],
  tuple[FinetuneState, dict[str, Any]],
]


def make_step(
  module: resnet.ResNet, *, momentum: float, smoothing: float
) -> Step:
  """Returns an update of everything by Nesterov's SGD.

  It takes a state, a batch, the learning rate and the weight decay, which is
  the factor with which each weight is added to its gradient. These two are
  arguments, so that one program serves all trainings of a grid.

  Args:
    module: the encoder.
    momentum: Nesterov's.
    smoothing: of `cross_entropy`.

  The labels of a batch are int [B], or int [B, K] where an image may have
  several classes. Then the loss is the mean of `binary_cross_entropy` over all
  images and classes that count, as in ssl-transfer (paper.md §6.3).
  """

  def step(
    state: FinetuneState,
    batch: Any,
    learning_rate: jax.Array,
    weight_decay: jax.Array,
  ) -> tuple[FinetuneState, dict[str, Any]]:
    labels = batch["label"]

    def loss(params: Any) -> tuple[jax.Array, tuple[Any, jax.Array]]:
      logits, batch_stats = forward(
        module, params, state.batch_stats, batch["image"], train=True
      )
      if labels.ndim == 2:
        each = binary_cross_entropy(logits, labels)
      else:
        each = cross_entropy(logits, labels, smoothing)
      return metrics.labelled_mean(each, labels), (batch_stats, logits)

    (value, (batch_stats, logits)), grads = jax.value_and_grad(
      loss, has_aux=True
    )(state.params)
    grads = jax.tree.map(
      lambda g, w: g + weight_decay.astype(w.dtype) * w, grads, state.params
    )
    moved = jax.tree.map(lambda m, g: g + momentum * m, state.momentum, grads)

    def move(w: jax.Array, g: jax.Array, m: jax.Array) -> jax.Array:
      return w - learning_rate.astype(w.dtype) * (g + momentum * m)

    report = {"train/loss": value, "train/learning_rate": learning_rate}
    if labels.ndim == 1:
      hits = metrics.in_top_k(logits, labels, 1)
      report["train/top1"] = metrics.labelled_mean(hits, labels)
    return (
      FinetuneState(
        step=state.step + 1,
        params=jax.tree.map(move, state.params, grads, moved),
        batch_stats=batch_stats,
        momentum=moved,
      ),
      report,
    )

  return step


def make_logit_fn(module: resnet.ResNet, mesh: Mesh) -> features.FeatureFn:
  """Returns a function that gives "logits", [B, K].

  The variables are "params" and "batch_stats" of a state.
  """
  return _of_logits(module, mesh, lambda logits: {"logits": logits})


def make_guess_fn(module: resnet.ResNet, mesh: Mesh) -> features.FeatureFn:
  """Returns a function that gives "guesses", int32 [B, 1, 5].

  They are those of `linear_heads.make_guess_fn`.
  The variables are "params" and "batch_stats" of a state.
  """
  return _of_logits(
    module,
    mesh,
    lambda logits: {"guesses": linear_heads.best_of(logits)[:, None]},
  )


def _of_logits(
  module: resnet.ResNet,
  mesh: Mesh,
  found: Callable[[jax.Array], dict[str, jax.Array]],
) -> features.FeatureFn:
  """Returns a function that gives what `found` makes of an image's logits."""

  def of_images(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
    logits, _ = forward(
      module,
      variables["params"],
      variables["batch_stats"],
      images,
      train=False,
    )
    return found(logits)

  return jax.jit(of_images, out_shardings=sharding.split(mesh))
