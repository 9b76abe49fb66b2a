"""What one update makes smaller: the loss of a micro-batch, and its metrics.

BYOL, SimCLR and what lies between them are settings of one loss (paper §5).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from byol_flax.models import byol
from byol_flax.pretrain import losses, metrics, regression
from input_pipeline.errors import UsageError

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
  """A member of the family of losses (paper §5, App. F.4, F.6 and I).

  Attributes:
    negatives_weight: β, how much other images are pushed away: 0 is BYOL, 1 is
      InfoNCE.
    temperature: α of the negatives.
    normalization: a key of `losses.NORMALIZATIONS`.
    target: what is predicted: projections of the target network ("average"),
      or of the online network with the gradient stopped ("online_stopped") or
      not ("online").
    optimal_predictor: predicts by regression on the batch.
    ridge: of that regression, see `regression.optimal_predictor`.
    multiplier: of the loss, but not of the online classifier's.
  """

  negatives_weight: float
  temperature: float
  normalization: str
  target: str
  optimal_predictor: bool
  ridge: float
  multiplier: float

  @property
  def has_target_network(self) -> bool:
    """Whether the target network differs from the online network."""
    return self.target == "average"


def check(config: Any) -> None:
  """Raises UsageError for settings of a run that mean nothing together.

  Args:
    config: as made by configs/byol.py.
  """
  settings, model = config.objective, config.model
  if settings.negatives_weight and settings.normalization != "l2":
    raise UsageError(
      "Negatives are compared by cosines, so objective.negatives_weight="
      f"{settings.negatives_weight:g} needs objective.normalization=l2, which "
      f"is {settings.normalization}. Change one of the two."
    )
  if settings.optimal_predictor and model.predictor.layers:
    raise UsageError(
      "objective.optimal_predictor takes the place of the predictor, which has "
      f"{model.predictor.layers} layers; add --config.model.predictor.layers=0."
    )
  rows, size = 2 * config.batch_size, model.projector.output_size
  hidden = model.projector.hidden_size
  if settings.optimal_predictor and not settings.ridge and rows < size:
    raise UsageError(
      f"The optimal predictor has {size} unknowns for each output, and a "
      f"batch of {config.batch_size} images gives {rows} equations. Take a "
      f"batch_size of at least {(size + 1) // 2}, or set objective.ridge, such "
      "as 1e-4."
    )
  if (
    settings.optimal_predictor
    and not settings.ridge
    and model.projector.layers > 1
    and hidden + bool(model.projector.final_bias) < size
  ):
    raise UsageError(
      f"The projector's last layer makes {size} outputs of {hidden}, so they "
      "depend on each other and there is no single optimal predictor. Set "
      f"model.projector.hidden_size to at least {size}, or objective.ridge, "
      "such as 1e-4."
    )
  multiplier = config.optimizer.predictor_multiplier
  if multiplier != 1 and not model.predictor.layers:
    raise UsageError(
      f"optimizer.predictor_multiplier is {multiplier:g}, but there is no "
      "predictor that learns: model.predictor.layers is 0. Set the multiplier "
      "to 1, or give the predictor layers."
    )


def moments(
  network: byol.ByolNetwork,
  settings: Objective,
  online_params: Any,
  target_params: Any,
  batch_stats: Mapping[str, Any],
  images: jax.Array,
) -> regression.Moments:
  """What a micro-batch adds to the regression of the optimal predictor.

  Args are those of `objective`. The running averages stay as they are.
  """
  online, target, _ = _embeddings(
    network, settings, online_params, target_params, batch_stats, images
  )
  return regression.moments(online.projection, target[:, ::-1])


def objective(
  network: byol.ByolNetwork,
  settings: Objective,
  online_params: Any,
  target_params: Any,
  batch_stats: Mapping[str, Any],
  images: jax.Array,
  labels: jax.Array,
  sums: regression.Moments | None = None,
  labelled: jax.Array | None = None,
) -> tuple[jax.Array, tuple[dict[str, Any], Metrics]]:
  """BYOL's loss plus that of the online classifier (paper.md §1.2, §1.6).

  Args:
    network: both networks.
    settings: which loss.
    online_params: the only argument that receives a gradient.
    target_params: of the target network.
    batch_stats: {"online", "target"}: running averages.
    images: uint8 [B, 2, H, W, 3], view1 and view2.
    labels: int32 [B]; -1 is no label.
    sums: over the whole batch, of which this is a part, for the optimal
      predictor; None if this is the whole batch.
    labelled: how many images of a micro-batch have a label, [] float > 0, on
      average over those of the batch; None if this is the whole batch.

  Returns:
    Loss [], and the new running averages and the metrics.
  """
  online, target, new_stats = _embeddings(
    network, settings, online_params, target_params, batch_stats, images
  )
  prediction = online.prediction
  if settings.optimal_predictor:
    sums = sums or regression.moments(online.projection, target[:, ::-1])
    # No gradient flows through the optimum itself: there it is 0 (App. H).
    matrix = jax.lax.stop_gradient(
      regression.optimal_predictor(sums, settings.ridge)
    )
    prediction = jnp.einsum(
      "bvd,de->bve", online.projection, matrix, precision="highest"
    )
  loss = jnp.mean(
    losses.symmetric_byol_loss(
      prediction, target, losses.NORMALIZATIONS[settings.normalization]
    )
  )
  report = {
    "train/byol_loss": loss,
    **metrics.signals_of_collapse(prediction, online.projection, target),
  }
  if settings.negatives_weight:
    repulsion = settings.negatives_weight * jnp.mean(
      losses.repulsion(prediction, target, settings.temperature)
    )
    loss += repulsion
    report["train/repulsion"] = repulsion
  if settings.multiplier != 1:
    loss *= settings.multiplier
  if network.num_classes:
    logits = online.logits[:, 0]  # view1 only
    classifier_loss = metrics.labelled_mean(
      losses.cross_entropy(logits, labels), labels, labelled
    )
    loss += classifier_loss
    report["train/classifier_loss"] = classifier_loss
    for k in (1, 5):
      report[f"train/top{k}"] = metrics.labelled_mean(
        metrics.in_top_k(logits, labels, k), labels, labelled
      )
  return loss, (new_stats, report)


def _embeddings(
  network: byol.ByolNetwork,
  settings: Objective,
  online_params: Any,
  target_params: Any,
  batch_stats: Mapping[str, Any],
  images: jax.Array,
) -> tuple[byol.Outputs, jax.Array, dict[str, Any]]:
  """Outputs of the online network, targets [B, 2, D], new running averages."""

  def forward(params: Any, side: str) -> tuple[byol.Outputs, Any]:
    outputs, updated = network.apply(
      {"params": params, "batch_stats": batch_stats[side]},
      images,
      train=True,
      mutable=["batch_stats"],
    )
    return outputs, updated["batch_stats"]

  online, online_stats = forward(online_params, "online")
  if settings.has_target_network:
    outputs, target_stats = forward(target_params, "target")
    target = outputs.projection
  else:
    target, target_stats = online.projection, online_stats
  if settings.target != "online":
    target = jax.lax.stop_gradient(target)
  return online, target, {"online": online_stats, "target": target_stats}
