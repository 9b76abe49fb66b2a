"""What a network computes for every example of a split, each read once."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.evaluation.encoder import Encoder
from byol_flax.models import resnet
from input_pipeline import pipeline, sources

# (variables, uint8 [B, S, S, 3]) -> arrays [B, ...] by name. Each row stays on
# the device of its image.
FeatureFn = Callable[[Any, jax.Array], dict[str, jax.Array]]
# The same of all N examples, and "label", int32 [N], -1 without label.
Features = dict[str, np.ndarray]

# (split, numbers of images of it) -> None.
Missed = Callable[[sources.Source, Sequence[int]], None]

# Batches from which an untrained encoder takes its BatchNorm statistics.
_CALIBRATION_BATCHES = 8


def make_feature_fn(encoder: Encoder, mesh: Mesh) -> FeatureFn:
  """Returns a function that gives "representation", [B, F], by an encoder."""

  def features(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
    return {
      "representation": resnet.represent(encoder.module, variables, images)
    }

  return jax.jit(features, out_shardings=sharding.split(mesh))


def make_raw_fn(mesh: Mesh) -> FeatureFn:
  """Returns a function that gives the pixels, in [0, 1], as "representation".

  Its shape is [B, S·S·3].
  """

  def features(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
    del variables
    return {"representation": images.reshape(len(images), -1) / np.float32(255)}

  return jax.jit(features, out_shardings=sharding.split(mesh))


def shared_size(batch_size: int, mesh: Mesh) -> int:
  """The next size from `batch_size` on that the devices can share."""
  return -(-batch_size // mesh.size) * mesh.size


def make_reader(
  transform: pipeline.RowTransform,
  mesh: Mesh,
  *,
  batch_size: int,
  num_workers: int,
  num_threads: int,
) -> pipeline.EvalReader:
  """How this process reads its rows.

  The devices share each batch, so a size that cannot be divided among them is
  rounded up; rows beyond the split do not count.
  """
  return pipeline.EvalReader(
    transform=transform,
    batch_size=shared_size(batch_size, mesh),
    num_workers=num_workers,
    num_threads=num_threads,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def of_batches(
  feature_fn: FeatureFn,
  variables: Any,
  batches: Iterable[Mapping[str, np.ndarray]],
  mesh: Mesh,
) -> Iterator[dict[str, jax.Array]]:
  """Yields what the network computes for each batch, with "label" and "mask".

  All arrays are cut along the batch. Rows whose mask is False do not count.
  """
  variables = sharding.gather(mesh, variables)
  for batch in sharding.prefetch(mesh, batches):
    found = feature_fn(variables, batch["image"])
    yield {**found, "label": batch["label"], "mask": batch["mask"]}


def extract(
  feature_fn: FeatureFn,
  variables: Any,
  batches: Iterable[Mapping[str, np.ndarray]],
  mesh: Mesh,
) -> Features:
  """Runs the network over evaluation batches and keeps the rows that count."""
  parts = []
  for found in of_batches(feature_fn, variables, batches, mesh):
    # Every process needs all rows; it holds only its own.
    rows = jax.device_get(sharding.gather(mesh, found))
    counts = rows.pop("mask")
    parts.append({name: x[counts] for name, x in rows.items()})
  return {
    name: np.concatenate([part[name] for part in parts]) for name in parts[0]
  }


@contextlib.contextmanager
def open_splits(
  splits: Sequence[sources.Source],
  reader: pipeline.EvalReader,
  part_done: Callable[[], None] = lambda: None,
  missed: Missed = lambda split, numbers: None,
) -> Iterator[list[Iterator[pipeline.Batch]]]:
  """Yields the batches of each split, to be read to the end in turn.

  Args:
    splits: what is read, by the same workers.
    reader: how it is read.
    part_done: called before each batch, equally often on every process. If it
      raises, the workers end too.
    missed: called after the last batch of each split. It is given the numbers
      of the images that this process could not read.
  """

  def announced(
    split: sources.Source, batches: Iterable[pipeline.Batch]
  ) -> Iterator[pipeline.Batch]:
    numbers: list[int] = []
    for batch in batches:
      part_done()
      unreadable = batch.pop("unreadable")
      numbers += unreadable[unreadable >= 0].tolist()
      yield batch
    missed(split, numbers)

  with contextlib.closing(reader.read(*splits)) as batches:
    yield [
      announced(split, itertools.islice(batches, reader.count_batches(split)))
      for split in splits
    ]


def extract_splits(
  feature_fn: FeatureFn,
  variables: Any,
  splits: Sequence[sources.Source],
  reader: pipeline.EvalReader,
  *,
  mesh: Mesh,
  part_done: Callable[[], None] = lambda: None,
  missed: Missed = lambda split, numbers: None,
) -> list[Features]:
  """Extracts all of each split in turn; other arguments as in `open_splits`."""
  with open_splits(splits, reader, part_done, missed) as batches_of:
    return [
      extract(feature_fn, variables, batches, mesh) for batches in batches_of
    ]


def calibrate(
  encoder: Encoder,
  source: sources.Source,
  reader: pipeline.EvalReader,
  mesh: Mesh,
  *,
  batch_size: int,
) -> Encoder:
  """Gives an untrained encoder BatchNorm statistics from images of `source`.

  With its initial averages it would do worse than it can, and a comparison with
  it would flatter the trained one. An encoder that has averages is returned as
  it is. Every process reads the same images and computes alone, on one device,
  so that the statistics do not depend on how many devices there are; nor does
  `batch_size` depend on them, as that of the reader does.
  """
  if encoder.has_averages:
    return encoder
  alone = dataclasses.replace(
    reader, batch_size=batch_size, process_index=0, process_count=1
  )
  count = min(len(source), _CALIBRATION_BATCHES * batch_size)
  first = sources.Part(source, source.split, range(count))

  @jax.jit
  def update(variables: Any, images: jax.Array) -> Any:
    _, changed = encoder.module.apply(
      variables, images[:, None], train=True, mutable=["batch_stats"]
    )
    return {**variables, **changed}

  variables = jax.device_get(encoder.variables)
  for batch in alone.read(first):
    variables = update(variables, batch["image"][batch["mask"]])
  whole = jax.tree.map(
    lambda x: sharding.put_everywhere(mesh, np.asarray(x)), variables
  )
  return dataclasses.replace(encoder, variables=whole, has_averages=True)
