"""What one update makes smaller: the loss of a micro-batch, and its metrics."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from byol_flax.models import byol
from byol_flax.pretrain import losses, metrics

Metrics = dict[str, jax.Array]


def objective(
  network: byol.ByolNetwork,
  online_params: Any,
  target_params: Any,
  batch_stats: Mapping[str, Any],
  images: jax.Array,
  labels: jax.Array,
) -> tuple[jax.Array, tuple[dict[str, Any], Metrics]]:
  """BYOL's loss plus that of the online classifier (paper.md §1.2, §1.6).

  Args:
    network: both networks.
    online_params: the only argument that receives a gradient.
    target_params: of the target network.
    batch_stats: {"online", "target"}: running averages.
    images: uint8 [B, 2, H, W, 3], view1 and view2.
    labels: int32 [B]; -1 is no label.

  Returns:
    Loss [], and the new running averages and the metrics.
  """

  def forward(params: Any, side: str) -> tuple[byol.Outputs, Any]:
    outputs, updated = network.apply(
      {"params": params, "batch_stats": batch_stats[side]},
      images,
      train=True,
      mutable=["batch_stats"],
    )
    return outputs, updated["batch_stats"]

  online, online_stats = forward(online_params, "online")
  target, target_stats = forward(target_params, "target")
  loss = jnp.mean(
    losses.symmetric_byol_loss(online.prediction, target.projection)
  )
  report = {
    "train/byol_loss": loss,
    **metrics.signals_of_collapse(
      online.prediction, online.projection, target.projection
    ),
  }
  if network.num_classes:
    logits = online.logits[:, 0]  # view1 only
    classifier_loss = metrics.labelled_mean(
      losses.cross_entropy(logits, labels), labels
    )
    loss += classifier_loss
    report["train/classifier_loss"] = classifier_loss
    for k in (1, 5):
      report[f"train/top{k}"] = metrics.labelled_mean(
        metrics.in_top_k(logits, labels, k), labels
      )
  return loss, ({"online": online_stats, "target": target_stats}, report)
