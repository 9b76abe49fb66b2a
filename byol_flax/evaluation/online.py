"""What is measured while pre-training goes on."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from byol_flax import metrics
from byol_flax.evaluation import features, knn
from byol_flax.models import byol
from byol_flax.train_state import ByolState
from input_pipeline import pipeline, sources


def make_evaluation(
  network: byol.ByolNetwork,
  mesh: Mesh,
  *,
  source: sources.Source,
  bank: sources.Source,
  reader: pipeline.EvalReader,
  neighbours: int,
  part_done: Callable[[], None],
) -> Callable[[ByolState], dict[str, float]]:
  """Returns state -> metrics of the online network on `source`.

  Args:
    network: the online network.
    mesh: where it runs.
    source: the evaluation split.
    bank: labelled examples among which kNN looks for neighbours.
    reader: how both are read. Its workers are started for each evaluation and
      end with it: between two they would only hold memory beside the workers
      of the training.
    neighbours: k.
    part_done: called between batches, equally often on every process.

  Returns:
    A function whose metrics are "classifier/<split>/top1" and "top5" of the
    online classifier and "knn/<split>/top1", fractions of the labelled examples
    of `source`, each counted once; empty when nothing has a label.
  """
  feature_fn = features.make_feature_fn(network, mesh)

  def evaluate(state: ByolState) -> dict[str, float]:
    if not network.num_classes:
      return {}
    found, known = features.extract_splits(
      feature_fn,
      state.online.variables,
      (source, bank),
      reader,
      mesh=mesh,
      part_done=part_done,
    )
    results = {
      f"knn/{source.split}/top1": knn.top1(
        known.representation,
        known.label,
        found.representation,
        found.label,
        k=neighbours,
        num_classes=network.num_classes,
      )
    }
    labelled = found.label >= 0
    for k in (1, 5):
      hits = metrics.in_top_k(
        jnp.asarray(found.logits), jnp.asarray(found.label), k
      )
      results[f"classifier/{source.split}/top{k}"] = float(
        np.sum(hits) / np.sum(labelled)
      )
    return results

  return evaluate
