"""Several representations of one data set, probed without training them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.evaluation import features, few_label, knn
from byol_flax.models import byol
from input_pipeline import pipeline, sources

# Batches from which an untrained encoder takes its BatchNorm statistics.
_CALIBRATION_BATCHES = 8

Split = tuple[np.ndarray, np.ndarray]  # features [N, F], labels [N]


@dataclasses.dataclass(frozen=True)
class Row:
  """Accuracies of one representation, fractions of the test split.

  Attributes:
    representation: raw_pixels, random_encoder or byol.
    linear: labels per class -> (mean, standard deviation) over the draws; only
      for as many as every class has.
    knn: with all labels of the training split.
  """

  representation: str
  linear: dict[int, tuple[float, float]]
  knn: float


def evaluate(
  representations: Sequence[str],
  extract: Callable[[str, sources.Source], Split],
  train: sources.Source,
  test: sources.Source,
  *,
  per_class: Sequence[int],
  draws: int,
  inverse_penalty: float,
  seed: int,
  neighbours: int,
  tell: Callable[[str], None],
) -> list[Row]:
  """Probes each representation on the same draws of labels.

  Args:
    representations: raw_pixels, random_encoder and byol, or some of them.
    extract: (name, split) -> features and labels.
    train: where labels and neighbours come from.
    test: what is counted.
    per_class: labels per class of the linear probes.
    draws: of labels.
    inverse_penalty: C of the logistic regression.
    seed: of the draws.
    neighbours: k.
    tell: gets a sentence about probes for which there are too few labels.
  """
  rows: list[Row] = []
  for name in representations:
    known, known_labels = extract(name, train)
    found, found_labels = extract(name, test)
    had, left_out = few_label.available(
      known_labels, per_class, train.class_names
    )
    if left_out and not rows:
      tell(left_out)
    linear = {}
    for count in had:
      scores = few_label.accuracies(
        known,
        known_labels,
        found,
        found_labels,
        per_class=count,
        draws=draws,
        inverse_penalty=inverse_penalty,
        seed=seed,
      )
      linear[count] = (float(scores.mean()), float(scores.std()))
    nearest = knn.top1(
      known,
      known_labels,
      found,
      found_labels,
      k=neighbours,
      num_classes=train.num_classes,
    )
    rows.append(Row(name, linear, nearest))
  return rows


def make_extractor(
  network: byol.ByolNetwork,
  mesh: Mesh,
  *,
  trained: Any,
  untrained: Any,
  reader: pipeline.EvalReader,
) -> Callable[[str, sources.Source], Split]:
  """Returns the `extract` of `evaluate`.

  Args:
    network: of both sets of variables.
    mesh: where it runs.
    trained: variables of the online network.
    untrained: variables as initialised; their BatchNorm statistics are taken
      from evaluation crops of the split first asked for.
    reader: how splits are read.
  """
  feature_fn = features.make_feature_fn(network, mesh)
  variables = {"byol": trained}

  def extract(name: str, source: sources.Source) -> Split:
    if name == "raw_pixels":
      rows = [
        (batch["image"][batch["mask"]], batch["label"][batch["mask"]])
        for batch in reader.read(source)
      ]
      images, labels = (
        np.concatenate(part) for part in zip(*rows, strict=True)
      )
      return images.reshape(len(images), -1) / np.float32(255), labels
    if name not in variables:
      whole = sharding.gather(mesh, untrained)
      count = min(len(source), _CALIBRATION_BATCHES * reader.batch_size)
      first = sources.Part(source, source.split, 0, count)
      variables[name] = calibrate(network, whole, reader.read(first))
    (found,) = features.extract_splits(
      feature_fn,
      variables[name],
      [source],
      reader,
      mesh=mesh,
      part_done=lambda: None,
    )
    return found.representation, found.label

  return extract


def calibrate(network: byol.ByolNetwork, variables: Any, batches: Any) -> Any:
  """Gives initial variables the BatchNorm statistics of some batches.

  With its initial averages an untrained encoder would be a weaker opponent
  than it is.
  """

  @jax.jit
  def update(variables: Any, images: jax.Array) -> Any:
    _, changed = network.apply(
      variables, images[:, None], train=True, mutable=["batch_stats"]
    )
    return {**variables, **changed}

  for batch in batches:
    variables = update(variables, batch["image"][batch["mask"]])
  return variables


def table(rows: Sequence[Row], neighbours: int) -> str:
  """The rows as text: accuracies, with the deviation over draws."""
  counts = list(rows[0].linear)
  header = [
    "representation",
    *(f"linear, {n}/class" for n in counts),
    f"{neighbours}-NN, all labels",
  ]
  lines = [header]
  for row in rows:
    cells = [f"{m:.3f} ± {s:.3f}" for m, s in row.linear.values()]
    lines.append([row.representation, *cells, f"{row.knn:.3f}"])
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return "\n".join(
    "  ".join(
      cell.ljust(width) for cell, width in zip(line, widths, strict=True)
    )
    for line in lines
  )
