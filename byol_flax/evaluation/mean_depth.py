"""What a constant reaches: the mean depth of train, overall and by pixel."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from byol_flax import sharding
from byol_flax.evaluation import (
  dense,
  depth_metrics,
  depth_network,
  training,
)
from byol_flax.evaluation.protocol import Setting
from input_pipeline import dense_depth, sources


def measures(
  setting: Setting, train: sources.Source, test: sources.Source
) -> dict[str, dict[str, dict[str, float]]]:
  """Measures on test, found now or by an earlier start.

  Returns:
    "overall", for the mean of all valid pixels of train, and "each pixel", for
    the mean at each place of the frame (the overall one where train has no
    valid pixel); then convention and measure. A constant is made for the whole
    frame, so "fcrn" stretches nothing here.
  """

  def find() -> dict[str, Any]:
    overall, each = _means(setting, train)
    compare = _make_compare(setting)
    return {
      name: depth_network.measures_of(
        setting, compare, sharding.put_everywhere(setting.mesh, mean), test
      )
      for name, mean in (
        ("overall", np.full_like(each, overall)),
        ("each pixel", each),
      )
    }

  found: dict[str, Any] = training.once(setting, "scores-mean-depth", find)
  return found


def _means(
  setting: Setting, train: sources.Source
) -> tuple[np.float32, np.ndarray]:
  """Mean of all valid pixels, and float32 [H, W], the mean of each."""

  def add(variables: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
    del variables
    valid = (batch["depth"] > 0) & batch["mask"][:, None, None]
    depths = jnp.where(valid, batch["depth"], 0)
    return jnp.sum(depths, axis=0), jnp.sum(valid, axis=0, dtype=jnp.int32)

  whole = sharding.replicated(setting.mesh)
  total: Any = np.zeros((), np.float64)
  count: Any = np.zeros((), np.int64)
  for depths, valid in dense.each_batch(
    setting,
    jax.jit(add, out_shardings=whole),
    {},
    train,
    dense_depth.EvalDepth(),
  ):
    total, count = total + depths, count + valid
  overall = np.float32(total.sum() / max(count.sum(), 1))
  each = np.where(count > 0, total / np.maximum(count, 1), overall)
  return overall, each.astype(np.float32)


def _make_compare(
  setting: Setting,
) -> Callable[[Any, Any], depth_network.SumsOf]:
  """Compares the depth [H, W] that stands for variables with all frames."""

  def compare(mean: jax.Array, batch: Any) -> depth_network.SumsOf:
    true = batch["depth"]
    found = jnp.broadcast_to(mean[None], true.shape)
    return {
      name: depth_metrics.row_sums(
        depth_metrics.middle(found) if cut else found,
        depth_metrics.middle(true) if cut else true,
        batch["mask"],
      )
      for name, cut in depth_metrics.CONVENTIONS.items()
    }

  return jax.jit(compare, out_shardings=sharding.replicated(setting.mesh))
