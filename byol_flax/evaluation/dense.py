"""What segmentation, detection and depth share: a state, an update, a training.

Each is a network of Flax's with a trained `encoder` and parts of its own. All
are trained as a whole by plain momentum and a rate that falls in steps, by the
one loop.
"""

import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from byol_flax import sharding
from byol_flax.evaluation import features, grid, training
from byol_flax.evaluation.protocol import Setting
from byol_flax.pretrain import schedules
from input_pipeline import pipeline, sources


@flax.struct.dataclass
class DenseState:
  """A network for a dense task.

  Attributes:
    step: completed updates.
    params: "encoder" and the task's own parts.
    batch_stats: BatchNorm's averages of the same parts.
    momentum: has the shapes of `params`.
  """

  step: jax.Array
  params: dict[str, Any]
  batch_stats: dict[str, Any]
  momentum: dict[str, Any]

  @property
  def variables(self) -> dict[str, Any]:
    """What the network is applied to."""
    return {"params": self.params, "batch_stats": self.batch_stats}


@flax.struct.dataclass
class Sgd:
  """What the trainings of one network differ in; no program depends on it.

  Attributes:
    peak: the learning rate after the warm-up.
    warmup_steps: updates in which the rate rises in equal steps.
    warmup_factor: the share of `peak` with which it begins.
    drops: updates after which the rate is a tenth of what it was.
    momentum: v = momentum · v + gradient; weights move by rate · v.
    weight_decay: factor with which a weight is added to its gradient.
    seed: of what an update draws. JAX would take an int for an int32, which
      holds half of all seeds.
  """

  peak: float
  warmup_steps: int
  warmup_factor: float
  drops: tuple[int, ...]
  momentum: float
  weight_decay: float
  seed: np.uint32


# (params, batch_stats, batch, key) -> (loss, (batch_stats, metrics)).
Loss = Callable[
  [Any, Any, Any, jax.Array],
  tuple[jax.Array, tuple[Any, dict[str, jax.Array]]],
]
# The names of a parameter, from the outermost on -> whether it is meant.
Choice = Callable[[tuple[str, ...]], bool]
Update = Callable[[DenseState, Any, Sgd], tuple[DenseState, dict[str, Any]]]


def sgd_of(config: Any, *, learning_rate: float, seed: int) -> Sgd:
  """How a config's training goes on, at one rate and by one seed."""
  return Sgd(
    peak=learning_rate,
    warmup_steps=config.warmup_steps,
    warmup_factor=config.warmup_factor,
    drops=tuple(round(share * config.steps) for share in config.drops),
    momentum=config.momentum,
    weight_decay=config.weight_decay,
    seed=np.uint32(seed),
  )


def is_norm(names: Sequence[str]) -> bool:
  """Whether a parameter is the scale or the offset of a BatchNorm."""
  return names[-1] in ("scale", "offset")


def trained_parts(*, batch_norm: str, encoder: str = "fine_tuned") -> Choice:
  """Which parameters move.

  Args:
    batch_norm: "frozen" leaves scale and offset of the encoder's as they are.
    encoder: "frozen" leaves all of it as it is.
  """

  def moves(names: tuple[str, ...]) -> bool:
    if names[0] != "encoder":
      return True
    if encoder == "frozen":
      return False
    return batch_norm != "frozen" or not is_norm(names)

  return moves


def batch_groups(batch_norm: str, setting: Setting) -> int:
  """Into how many groups of statistics a batch is divided."""
  return setting.mesh.size if batch_norm == "per_device" else 1


def norm_of(config: Any) -> str:
  """What becomes of the encoder's BatchNorm, as `batch_norm` of a config says.

  It is a part of the encoder, so that of a frozen one is frozen, too.
  """
  frozen = config.get("encoder") == "frozen"
  return "frozen" if frozen else str(config.batch_norm)


def make_creator(
  module: nn.Module, example: Callable[[], tuple[Any, ...]], setting: Setting
) -> Callable[[int], DenseState]:
  """Returns seed -> state before the first update, on the mesh.

  Args:
    module: the network; called as module(*example(), train=True).
    example: makes a batch of the least size.
    setting: of the evaluation, whose encoder it begins with.
  """

  def create(variables: Any, seed: jax.Array) -> DenseState:
    made: Any = module.init(jax.random.key(seed), *example(), train=True)
    parts = {
      name: {**made[name], "encoder": variables[name]}
      for name in ("params", "batch_stats")
    }
    return DenseState(
      step=jnp.zeros((), jnp.int32),
      momentum=jax.tree.map(jnp.zeros_like, parts["params"]),
      **parts,
    )

  whole = sharding.replicated(setting.mesh)
  jitted = jax.jit(create, out_shardings=whole)
  return lambda seed: jitted(setting.encoder.variables, np.uint32(seed))


def make_update(
  loss: Loss, setting: Setting, *, moves: Choice, decays: Choice
) -> Update:
  """Returns a jitted update of everything that moves.

  Args:
    loss: over the whole batch, wherever its rows lie.
    setting: of the evaluation.
    moves: which parameters are trained.
    decays: to which of them the weight decay applies.
  """

  def update(
    state: DenseState, batch: Any, sgd: Sgd
  ) -> tuple[DenseState, dict[str, Any]]:
    rate = schedules.stepwise(
      state.step,
      peak=sgd.peak,
      warmup_steps=sgd.warmup_steps,
      warmup_factor=sgd.warmup_factor,
      drops=sgd.drops,
    )
    key = jax.random.fold_in(jax.random.key(sgd.seed), state.step)
    (value, (batch_stats, found)), grads = jax.value_and_grad(
      loss, has_aux=True
    )(state.params, state.batch_stats, batch, key)

    def moved(path: Any, g: jax.Array, w: jax.Array, v: jax.Array) -> Any:
      names = tuple(str(part.key) for part in path)
      if not moves(names):
        return w, v
      decay = sgd.weight_decay if decays(names) else 0.0
      v = sgd.momentum * v + g + decay * w
      return (w - rate * v).astype(w.dtype), v.astype(w.dtype)

    pairs = jax.tree_util.tree_map_with_path(
      moved, grads, state.params, state.momentum
    )
    params, momentum = jax.tree.transpose(
      jax.tree.structure(grads), jax.tree.structure((0, 0)), pairs
    )
    report = {"train/loss": value, "train/learning_rate": rate, **found}
    return (
      DenseState(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        momentum=momentum,
      ),
      report,
    )

  whole = sharding.replicated(setting.mesh)
  return jax.jit(update, donate_argnums=0, out_shardings=(whole, whole))


def of_images(
  module: nn.Module,
  judge: Callable[[Any, Any], tuple[jax.Array, dict[str, jax.Array]]],
) -> Loss:
  """Returns the loss of a network that is called on images; draws nothing.

  Args:
    module: called as module(images, train=True) on "image" of a batch.
    judge: (what it gives, batch) -> loss and metrics.
  """

  def loss(
    params: Any, batch_stats: Any, batch: Any, key: jax.Array
  ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    del key
    found: Any = module.apply(
      {"params": params, "batch_stats": batch_stats},
      batch["image"],
      train=True,
      mutable=["batch_stats"],
    )
    given, changed = found
    value, report = judge(given, batch)
    return value, (changed["batch_stats"], report)

  return loss


def make_training(
  setting: Setting,
  *,
  name: str,
  source: sources.Source,
  stream: Callable[[sources.ReadableSource], pipeline.Stream],
  row_bytes: int,
  create_state: Callable[[int], DenseState],
  update: Update,
  sgd: Sgd,
  evaluate: Callable[[DenseState], dict[str, float]] = lambda state: {},
  evaluate_every: int = 0,
) -> training.Training:
  """Makes a training in a folder of its own.

  Args:
    setting: of the evaluation.
    name: of the folder.
    source: what is read.
    stream: see `training.Training`, like `row_bytes`.
    row_bytes: of the arrays of an example, at most.
    create_state: see `make_creator`.
    update: see `make_update`.
    sgd: how it is trained.
    evaluate: state -> metrics for the curve.
    evaluate_every: after how many updates, and at the end; 0 is never.
  """
  config = setting.config
  return training.Training(
    name=name,
    source=source,
    stream=stream,
    row_bytes=row_bytes,
    batch_size=config.batch_size,
    total_steps=config.steps,
    create_state=functools.partial(create_state, int(sgd.seed)),
    step_fn=lambda state, batch: update(state, batch, sgd),
    evaluate=evaluate if evaluate_every else lambda state: {},
    evaluate_every=evaluate_every,
    headline=("loss", "train/loss"),
  )


def train(setting: Setting, **what: Any) -> DenseState:
  """Trains what `make_training` makes, or goes on; returns the last state.

  Raises:
    PreemptedError: after a save; the same command goes on.
  """
  state: DenseState = training.run(make_training(setting, **what), setting)
  return state


def trial(
  setting: Setting, name: str, report: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
  """What `report` finds of a training, or an earlier start has found.

  The training's checkpoints, in the folder `name`, are removed then.
  """
  found: dict[str, Any] = training.once(setting, f"scores-{name}", report)
  grid.forget(setting, name)
  return found


def each_batch(
  setting: Setting,
  function: Callable[[Any, Any], Any],
  variables: Any,
  split: sources.Source,
  transform: pipeline.RowTransform,
) -> Generator[Any, None, None]:
  """Yields function(variables, batch) for each batch of a split.

  Args:
    setting: of the evaluation; its config has `evaluation_batch_size`.
    function: jitted; a batch has global arrays [B, ...], and "mask" tells which
      of its rows count. What it gives must be whole on every device.
    variables: of the network.
    split: every example is read once, in order.
    transform: makes a row of an example.
  """
  config = setting.config
  reader = features.make_reader(
    transform,
    setting.mesh,
    batch_size=config.evaluation_batch_size,
    num_workers=config.num_workers,
    num_threads=setting.num_threads,
  )
  announce = setting.progress(reader.count_batches(split), reader.batch_size)
  with features.open_splits([split], reader, announce, setting.missed) as (
    batches,
  ):
    for batch in sharding.prefetch(setting.mesh, batches):
      yield jax.device_get(function(variables, batch))


def spread(values: Sequence[float]) -> dict[str, Any]:
  """Mean of several trials and their standard deviation, over N - 1.

  The deviation of a single trial is not known, so it is None.
  """
  return {
    "mean": float(np.mean(values)),
    "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    "each": [float(value) for value in values],
  }
