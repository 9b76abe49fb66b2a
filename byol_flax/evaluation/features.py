"""Representations of a data split by a frozen encoder, every example once."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.models import byol
from input_pipeline import augment, pipeline, sources

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


def extract_split(
  feature_fn: FeatureFn,
  variables: Any,
  source: sources.Source,
  crop: augment.EvalCrop,
  *,
  batch_size: int,
  mesh: Mesh,
  part_done: Callable[[], None],
) -> Features:
  """`extract` over all of `source`.

  Args:
    feature_fn: as made by `make_feature_fn`.
    variables: of the network.
    source: the split.
    crop: evaluation pre-processing.
    batch_size: global.
    mesh: where the network runs.
    part_done: called before each batch, equally often on every process.
  """
  batches = pipeline.eval_iterator(
    source,
    crop,
    batch_size=batch_size,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )

  def announced() -> Iterator[pipeline.Batch]:
    for batch in batches:
      part_done()
      yield batch

  with contextlib.closing(batches):
    return extract(feature_fn, variables, announced(), mesh)
