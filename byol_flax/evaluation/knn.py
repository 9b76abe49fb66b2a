"""Classifies by the votes of nearest neighbours.

One search with the largest k serves every k and both votes.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.evaluation import features, kept_pictures, knn_shown, rows
from byol_flax.evaluation.neighbours import Bank, make_bank
from byol_flax.evaluation.protocol import Setting
from input_pipeline import sources
from input_pipeline.errors import RunError, UsageError

# Queries handled at once, if they do not come in batches.
AT_ONCE = 256

# (similarity [Q, k], label [Q, k], K) -> class [Q]. Labels of -1 do not vote.
Vote = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def majority(
  similarity: np.ndarray, label: np.ndarray, num_classes: int
) -> np.ndarray:
  """The most frequent class; among tied ones the closest wins, int [Q]."""
  # Cosines lie in [-1, 1], so all closeness together is less than one vote.
  closeness = (similarity.astype(np.float64) + 1) / (2 * label.shape[1] + 1)
  return _largest(1 + closeness, label, num_classes)


def weighted(temperature: float) -> Vote:
  """The vote in which a neighbour has the weight exp(cosine / temperature)."""

  def vote(
    similarity: np.ndarray, label: np.ndarray, num_classes: int
  ) -> np.ndarray:
    # Relative to the nearest, so that the largest weight is always 1.
    farther = similarity.astype(np.float64) - similarity[:, :1]
    return _largest(np.exp(farther / temperature), label, num_classes)

  return vote


def _largest(
  weight: np.ndarray, label: np.ndarray, num_classes: int
) -> np.ndarray:
  """The class with the largest sum of weights, [Q]; the first of tied ones."""
  count = len(label)
  voting = label >= 0
  place = np.arange(count)[:, None] * num_classes + label
  sums = np.bincount(
    place[voting], weight[voting], minlength=count * num_classes
  )
  return sums.reshape(count, num_classes).argmax(axis=1)


class Hits:
  """What each vote takes the queries for, with each number of neighbours.

  Attributes:
    broken: how many queries with a label are not finite; their neighbours mean
      nothing.
  """

  def __init__(
    self,
    bank: Bank,
    *,
    neighbours: Sequence[int],
    votes: Mapping[str, Vote],
    num_classes: int,
  ) -> None:
    """Takes the bank, all values of k, the votes by name, and K."""
    self._bank = bank
    self._neighbours = tuple(neighbours)
    self._votes = dict(votes)
    self._num_classes = num_classes
    self._seen = 0
    self._labels: list[np.ndarray] = []
    self._numbers: list[np.ndarray] = []
    self._near: list[tuple[np.ndarray, np.ndarray]] = []
    self._guesses: dict[str, dict[int, list[np.ndarray]]] = {
      name: {k: [] for k in self._neighbours} for name in votes
    }
    self.broken = 0

  def add(self, queries: jax.Array, labels: np.ndarray) -> None:
    """Classifies queries [Q, F] of known labels int [Q]; -1 does not count."""
    counted = np.flatnonzero(labels >= 0)
    found = self._bank.nearest(queries, max(self._neighbours))
    similarity, label, place = (
      np.asarray(x)[counted]
      for x in (found.similarity, found.label, found.place)
    )
    self._labels.append(labels[counted])
    self._numbers.append(self._seen + counted)
    self._seen += len(labels)
    shown = knn_shown.NEIGHBOURS
    self._near.append((similarity[:, :shown], place[:, :shown]))
    self.broken += int(np.sum(np.isnan(similarity[:, 0])))
    for name, vote in self._votes.items():
      for k in self._neighbours:
        guess = vote(similarity[:, :k], label[:, :k], self._num_classes)
        self._guesses[name][k].append(guess)

  @property
  def count(self) -> int:
    """Queries so far that have a label, N."""
    return len(self.labels)

  @property
  def labels(self) -> np.ndarray:
    """Of the queries that have one, int [N]."""
    return np.concatenate(self._labels)

  @property
  def numbers(self) -> np.ndarray:
    """Places of these queries among all that were added, int [N]."""
    return np.concatenate(self._numbers)

  @property
  def near(self) -> tuple[np.ndarray, np.ndarray]:
    """Cosines, and places in the bank, of the nearest rows, [N, 5] or fewer."""
    similarity, place = zip(*self._near, strict=True)
    return np.concatenate(similarity), np.concatenate(place)

  def guesses(self, vote: str, k: int) -> np.ndarray:
    """What the queries are taken for, int [N]."""
    return np.concatenate(self._guesses[vote][k])

  def top1(self) -> dict[str, dict[int, float]]:
    """Vote -> k -> share of the queries with a label, in [0, 1]."""
    labels = self.labels
    return {
      vote: {
        k: int(np.sum(self.guesses(vote, k) == labels)) / max(len(labels), 1)
        for k in self._neighbours
      }
      for vote in self._votes
    }


def top1(
  bank: np.ndarray,
  bank_labels: np.ndarray,
  queries: np.ndarray,
  query_labels: np.ndarray,
  *,
  k: int,
  num_classes: int,
  mesh: Mesh,
) -> float:
  """Share of labelled queries that the majority puts right, in [0, 1].

  Args:
    bank: float [N, F], on every process. Only directions count.
    bank_labels: int [N]; rows with -1 are not looked at.
    queries: float [Q, F], on every process.
    query_labels: int [Q]; rows with -1 do not count.
    k: neighbours; more than the bank holds counts as all of it.
    num_classes: K.
    mesh: the devices that search.
  """
  hits = Hits(
    make_bank(rows.put(bank, bank_labels, mesh), mesh),
    neighbours=(k,),
    votes={"majority": majority},
    num_classes=num_classes,
  )
  for start in range(0, len(queries), AT_ONCE):
    part = slice(start, start + AT_ONCE)
    hits.add(
      sharding.put_everywhere(mesh, queries[part].astype(np.float32)),
      query_labels[part],
    )
  return hits.top1()["majority"][k]


def run(setting: Setting) -> dict[str, Any]:
  """The protocol of configs/knn.py; prints the table it returns."""
  config, mesh = setting.config, setting.mesh
  known, found = (
    setting.open_split(name) for name in ("train_split", "test_split")
  )
  setting.check_splits(known, found)
  _check_enough(config.neighbours, len(known) - len(known.unlabelled()), known)
  reader = setting.make_reader()
  setting.tell(f"input: {reader.describe(known, found)}")
  encoder = features.calibrate(
    setting.encoder, known, reader, mesh, batch_size=config.batch_size
  )
  of_batches = functools.partial(
    features.of_batches,
    features.make_feature_fn(encoder, mesh),
    encoder.variables,
    mesh=mesh,
  )
  count = reader.count_batches(known)
  part_done = setting.progress(
    count + reader.count_batches(found), reader.batch_size
  )
  with features.open_splits(
    (known, found), reader, part_done, setting.missed
  ) as batches:
    bank = make_bank(rows.collect(of_batches(batches[0]), count, mesh), mesh)
    _check_finite(bank.broken, bank.size, known)
    # Some images may have turned out to be unreadable.
    _check_enough(config.neighbours, bank.size, known)
    hits = Hits(
      bank,
      neighbours=config.neighbours,
      votes={"majority": majority, "weighted": weighted(config.temperature)},
      num_classes=known.num_classes,
    )
    sample = knn_shown.Sample(len(found), mesh)
    for batch in of_batches(batches[1]):
      labels = labels_of(batch, mesh)
      hits.add(batch["representation"], labels)
      sample.add(batch["representation"], labels)
  _check_finite(hits.broken, hits.count, found)
  scores = hits.top1()
  setting.tell(table(scores))
  vote, k = max(
    itertools.product(scores, config.neighbours),
    key=lambda one: scores[one[0]][one[1]],
  )
  best = hits.guesses(vote, k)
  if jax.process_index() == 0 and kept_pictures.wanted(setting.workdir):
    knn_shown.keep(
      setting,
      sample,
      bank=known,
      queries=found,
      numbers=hits.numbers,
      near=hits.near,
      guess=best,
    )
  return {
    "top1": scores,
    "confusions": kept_pictures.keep_guesses(
      setting.workdir,
      "",
      hits.labels,
      best,
      known.class_names,
      about=f"{k} neighbours, {vote} vote",
    ),
    "counted": {"bank": bank.size, "queries": hits.count},
    "splits": setting.describe(known, found),
    "selection": "Nothing is chosen: all numbers of neighbours are reported.",
    "updates": 0,
  }


def labels_of(batch: Mapping[str, jax.Array], mesh: Mesh) -> np.ndarray:
  """Labels int [B] of all processes' rows; -1 for rows that do not count."""
  label, mask = jax.device_get(
    sharding.gather(mesh, (batch["label"], batch["mask"]))
  )
  return np.where(mask, label, -1)


def _check_enough(
  neighbours: Sequence[int], count: int, split: sources.Source
) -> None:
  if max(neighbours) > count:
    raise UsageError(
      f"neighbours asks for {max(neighbours):,}, but {split.split} of "
      f"{split.name} has only {count:,} images with a class to look among; "
      "ask for no more than that."
    )


def _check_finite(broken: int, count: int, split: sources.Source) -> None:
  if broken:
    raise RunError(
      f"{broken:,} of the {count:,} features of {split.split} are not finite, "
      "so they have no neighbours. Evaluate an earlier checkpoint of the run: "
      "--encoder=WORKDIR@STEP."
    )


def table(scores: Mapping[str, Mapping[int, float]]) -> str:
  """The scores as text, a line for each number of neighbours."""
  lines = [f"{'neighbours':<12}" + "".join(f"{name:<10}" for name in scores)]
  for k in next(iter(scores.values())):
    cells = "".join(f"{by_k[k]:<10.4f}" for by_k in scores.values())
    lines.append(f"{k:<12}{cells}")
  return "\n".join(line.rstrip() for line in lines)
