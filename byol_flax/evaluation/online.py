"""The evaluation that runs at intervals while pre-training goes on."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.evaluation import features, knn, rows
from byol_flax.evaluation import neighbours as neighbours_lib
from byol_flax.models import byol
from byol_flax.pretrain import metrics
from byol_flax.pretrain.train_state import ByolState
from byol_flax.runs import data_sets
from byol_flax.runs.distributed import Processes
from input_pipeline import augment, folders, labels, pipeline, sources
from input_pipeline.errors import UsageError

_TOP = (1, 5)  # accuracies of the online classifier


def open_evaluation(
  config: Any,
  network: byol.ByolNetwork,
  mesh: Mesh,
  processes: Processes,
  tell: Callable[[str], None],
) -> tuple[Callable[[ByolState], dict[str, float]], str]:
  """Opens the evaluation that a config wants while it trains.

  Without labels there is nothing to count, and without folders of splits
  nothing to count it on. Then the evaluation does nothing.

  Returns:
    The evaluation, and a phrase that says who reads its images, or why none.

  Raises:
    UsageError: a split that cannot be opened, or has no labels.
  """
  settings = config.evaluation
  if not network.num_classes:
    return lambda state: {}, "none, because the images have no labels"
  whole = [
    folders.is_whole(config.data.name, split)
    for split in (config.data.split, settings.split)
  ]
  if whole == [True, False]:
    return lambda state: {}, (
      f"none, because data.split={config.data.split} takes the whole folder; "
      "to have one, put images to test on into a sub-folder test/ and the "
      "others into train/, and take data.split=train"
    )

  def open_split(setting: str) -> sources.Source:
    try:
      source = data_sets.open_split(config, settings[setting])
    except UsageError as error:
      raise UsageError(f"evaluation.{setting}: {error}") from None
    named = f"evaluation.{setting}={settings[setting]}"
    if some := labels.check_labelled(source, named):
      tell(some)
    return source

  source, bank = open_split("split"), open_split("bank_split")
  reader = features.make_reader(
    augment.EvalCrop(size=config.augment.size, ratio=settings.crop_ratio),
    mesh,
    batch_size=settings.batch_size,
    num_workers=config.loader.num_workers,
    num_threads=data_sets.num_threads(config),
  )
  evaluate = make_evaluation(
    network,
    mesh,
    source=source,
    bank=bank,
    reader=reader,
    neighbours=settings.neighbours,
    part_done=processes.part_done,
  )
  return evaluate, reader.describe(source, bank)


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
    reader: how both are read. Its workers start and end with each evaluation:
      in between they would only hold memory, beside training's own workers.
    neighbours: k.
    part_done: called between batches, equally often on every process.

  Returns:
    A function whose metrics are "classifier/<split>/top1" and "top5" of the
    online classifier and "knn/<split>/top1", fractions of the labelled examples
    of `source`, each counted once; empty when nothing has a label.
  """
  feature_fn = make_feature_fn(network, mesh)
  count_in_top = jax.jit(_count_in_top, out_shardings=sharding.replicated(mesh))

  def evaluate(state: ByolState) -> dict[str, float]:
    if not network.num_classes:
      return {}
    of_batches = functools.partial(
      features.of_batches, feature_fn, state.online.variables, mesh=mesh
    )
    splits = (bank, source)
    with features.open_splits(splits, reader, part_done) as (known, found):
      rows_of_bank = rows.collect(
        of_batches(known), reader.count_batches(bank), mesh
      )
      nearest = knn.Hits(
        neighbours_lib.make_bank(rows_of_bank, mesh),
        neighbours=(neighbours,),
        votes={"majority": knn.majority},
        num_classes=network.num_classes,
      )
      in_top = np.zeros(len(_TOP), int)
      for batch in of_batches(found):
        nearest.add(batch["representation"], knn.labels_of(batch, mesh))
        in_top += count_in_top(batch["logits"], batch["label"], batch["mask"])
    results = {
      f"knn/{source.split}/top1": nearest.top1()["majority"][neighbours]
    }
    for k, count in zip(_TOP, in_top, strict=True):
      results[f"classifier/{source.split}/top{k}"] = float(
        count / max(nearest.count, 1)
      )
    return results

  return evaluate


def _count_in_top(
  logits: jax.Array, label: jax.Array, mask: jax.Array
) -> jax.Array:
  """For each k of `_TOP`, how many labels are among the k largest, [2]."""
  counted = jnp.where(mask, label, -1)
  return jnp.stack(
    [jnp.sum(metrics.in_top_k(logits, counted, k)) for k in _TOP]
  ).astype(jnp.int32)


def make_feature_fn(
  network: byol.ByolNetwork, mesh: Mesh
) -> features.FeatureFn:
  """Returns a function that gives "representation" [B, F] and "logits" [B, K].

  Both are those of `network`.
  """

  def found(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
    outputs: Any = network.apply(variables, images[:, None], train=False)
    return {
      "representation": outputs.representation[:, 0],
      "logits": outputs.logits[:, 0],
    }

  return jax.jit(found, out_shardings=sharding.split(mesh))
