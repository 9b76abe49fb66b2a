"""Compares representations of one data set by probes; trains no encoder."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from byol_flax.evaluation import features, few_label, knn, protocol
from byol_flax.evaluation.encoder import Encoder, untrained
from input_pipeline.errors import UsageError

Split = tuple[np.ndarray, np.ndarray]  # features [N, F], labels [N]


@dataclasses.dataclass(frozen=True)
class Row:
  """Accuracies of one representation, fractions of the test split.

  Attributes:
    representation: raw_pixels, random_encoder or byol.
    linear: labels per class -> (mean, standard deviation) over the draws; only
      numbers of labels that every class has.
    knn: accuracy of kNN with all labels of the training split.
  """

  representation: str
  linear: dict[int, tuple[float, float]]
  knn: float


def evaluate(
  representations: Sequence[str],
  extract: Callable[[str], Sequence[Split]],
  *,
  class_names: Sequence[str],
  per_class: Sequence[int],
  draws: int,
  inverse_penalty: float,
  seed: int,
  neighbours: int,
  mesh: Mesh,
  tell: Callable[[str], None],
) -> list[Row]:
  """Probes each representation on the same draws of labels.

  Args:
    representations: raw_pixels, random_encoder and byol, or some of them.
    extract: name -> the split from which labels and neighbours are taken, and
      the split on which accuracy is measured.
    class_names: of all classes.
    per_class: labels per class of the linear probes.
    draws: of labels.
    inverse_penalty: C of the logistic regression.
    seed: of the draws.
    neighbours: k.
    mesh: that looks for them.
    tell: is given a sentence about probes for which there are too few labels.
  """
  rows: list[Row] = []
  for name in representations:
    (known, known_labels), (found, found_labels) = extract(name)
    had, left_out = few_label.available(known_labels, per_class, class_names)
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
      num_classes=len(class_names),
      mesh=mesh,
    )
    rows.append(Row(name, linear, nearest))
  return rows


def run(setting: protocol.Setting) -> dict[str, Any]:
  """The protocol of configs/few_label.py; prints the table it returns."""
  config, encoder = setting.config, setting.encoder
  known, found = (
    setting.open_split(name) for name in ("train_split", "test_split")
  )
  setting.check_splits(known, found)
  if config.neighbours > len(known):
    raise UsageError(
      f"neighbours is {config.neighbours}; {known.split} has {len(known)} "
      "images to look among."
    )
  reader = setting.make_reader()
  for split in (known, found):
    setting.tell(f"input of {split.split}: {reader.describe(split)}")

  def encoder_named(name: str) -> Encoder:
    if name == "byol":
      chosen = encoder
    else:
      chosen = dataclasses.replace(
        encoder,
        variables=untrained(encoder.config, setting.mesh),
        has_averages=False,
      )
    return features.calibrate(
      chosen, known, reader, setting.mesh, batch_size=config.batch_size
    )

  def extract(name: str) -> list[Split]:
    if name == "raw_pixels":
      feature_fn, variables = features.make_raw_fn(setting.mesh), {}
    else:
      chosen = encoder_named(name)
      feature_fn = features.make_feature_fn(chosen, setting.mesh)
      variables = chosen.variables
    count = sum(map(reader.count_batches, (known, found)))
    splits = features.extract_splits(
      feature_fn,
      variables,
      [known, found],
      reader,
      mesh=setting.mesh,
      part_done=setting.progress(count, reader.batch_size),
      missed=setting.missed,
    )
    return [(split["representation"], split["label"]) for split in splits]

  rows = evaluate(
    config.representations,
    extract,
    class_names=known.class_names,
    neighbours=config.neighbours,
    mesh=setting.mesh,
    tell=setting.tell,
    **config.few_label.to_dict(),
  )
  setting.tell(table(rows, config.neighbours))
  return {
    "table": [dataclasses.asdict(row) for row in rows],
    "splits": setting.describe(known, found),
    "selection": "Nothing is chosen.",
    "updates": 0,
  }


def table(rows: Sequence[Row], neighbours: int) -> str:
  """The rows as a table: accuracies, with their deviations over the draws."""
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
