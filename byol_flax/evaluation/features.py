"""Representations of a data split by a frozen encoder, every example once."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.models import byol
from input_pipeline import pipeline, sources

FeatureFn = Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Features:
  """What a network says of the labelled and unlabelled examples of a split.

  Attributes:
    representation: float32 [N, F].
    label: int32 [N], -1 without label.
    logits: float32 [N, K] of the online classifier.
  """

  representation: np.ndarray
  label: np.ndarray
  logits: np.ndarray


def make_feature_fn(network: byol.ByolNetwork, mesh: Mesh) -> FeatureFn:
  """Returns (variables, uint8 [B, S, S, 3]) -> ([B, F], [B, K]).

  BatchNorm uses its running averages, so that an example's representation
  does not depend on the batch it is in.
  """

  def features(
    variables: Any, images: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    outputs: Any = network.apply(variables, images[:, None], train=False)
    return outputs.representation[:, 0], outputs.logits[:, 0]

  return jax.jit(features, out_shardings=sharding.replicated(mesh))


def extract(
  feature_fn: FeatureFn,
  variables: Any,
  batches: Iterable[Mapping[str, np.ndarray]],
  mesh: Mesh,
) -> Features:
  """Runs the network over evaluation batches and keeps the rows that count."""
  parts = []
  variables = sharding.gather(mesh, variables)
  for batch in sharding.prefetch(mesh, batches):
    representation, logits = feature_fn(variables, batch["image"])
    # Every process needs all rows; it holds only its own of these two.
    label, mask = sharding.gather(mesh, (batch["label"], batch["mask"]))
    *rows, counts = jax.device_get((representation, label, logits, mask))
    parts.append([x[counts] for x in rows])
  return Features(
    *(np.concatenate(column) for column in zip(*parts, strict=True))
  )


def extract_splits(
  feature_fn: FeatureFn,
  variables: Any,
  splits: Sequence[sources.Source],
  reader: pipeline.EvalReader,
  *,
  mesh: Mesh,
  part_done: Callable[[], None],
) -> list[Features]:
  """`extract` over all of each split; the same workers read one after another.

  Args:
    feature_fn: as made by `make_feature_fn`.
    variables: of the network.
    splits: what is read.
    reader: how it is read.
    mesh: where the network runs.
    part_done: called before each batch, equally often on every process. What
      it raises ends the workers, too.
  """

  def announced(batches: Iterable[pipeline.Batch]) -> Iterator[pipeline.Batch]:
    for batch in batches:
      part_done()
      yield batch

  with contextlib.closing(reader.read(*splits)) as batches:
    return [
      extract(
        feature_fn,
        variables,
        announced(itertools.islice(batches, reader.count_batches(split))),
        mesh,
      )
      for split in splits
    ]
