"""What pictures of nearest neighbours need, kept while they are found."""

import concurrent.futures
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.evaluation import kept_pictures
from byol_flax.evaluation.protocol import Setting
from byol_flax.reports import projector
from input_pipeline import augment, loading, sources

_SEED = 0
_MOST_POINTS = 5_000  # of the projection; t-SNE takes seconds for them
_QUERIES = 12  # rows of the sheet
NEIGHBOURS = 5  # columns of the sheet
assert _MOST_POINTS <= projector.MOST


class Sample:
  """The features of some examples of a split, drawn by seed."""

  def __init__(self, count: int, mesh: Mesh) -> None:
    """Takes the number of examples of the split, and where features lie."""
    rng = np.random.default_rng(_SEED)
    drawn = rng.permutation(count)[:_MOST_POINTS]
    self._drawn = np.zeros(count, bool)
    self._drawn[drawn] = True
    self._mesh = mesh
    self._seen = 0
    self._features: list[np.ndarray] = []
    self._numbers: list[np.ndarray] = []

  def add(self, features: jax.Array, labels: np.ndarray) -> None:
    """Takes the next batch, [B, F], on every process; -1 does not count."""
    numbers = self._seen + np.arange(len(labels))
    self._seen += len(labels)
    wanted = labels >= 0
    wanted[wanted] &= self._drawn[numbers[wanted]]
    if wanted.any():
      whole = jax.device_get(sharding.gather(self._mesh, features))
      self._features.append(whole[wanted].astype(np.float32))
      self._numbers.append(numbers[wanted])

  @property
  def features(self) -> np.ndarray:
    """Float32 [M, F]."""
    return np.concatenate(self._features)

  @property
  def numbers(self) -> np.ndarray:
    """Places of the examples in the split, int [M]."""
    return np.concatenate(self._numbers)


def keep(
  setting: Setting,
  sample: Sample,
  *,
  bank: sources.Source,
  queries: sources.Source,
  numbers: np.ndarray,
  near: tuple[np.ndarray, np.ndarray],
  guess: np.ndarray,
) -> None:
  """Keeps what the pictures need; process 0 alone calls this.

  What fails is told, and is no error.

  Args:
    setting: of the evaluation.
    sample: of `queries`.
    bank: where the neighbours are.
    queries: what was classified.
    numbers: places of all labelled queries in their split, int [N], rising.
    near: cosines of their neighbours, [N, k], and places in the bank, [N, k].
    guess: int [N].
  """
  crop = setting.encoder.crop
  with kept_pictures.spared("The sheet of neighbours", setting.tell):
    rng = np.random.default_rng(_SEED)
    chosen = rng.permutation(len(numbers))[:_QUERIES]
    similarity, place = (x[chosen] for x in near)
    rows = [
      [
        _example(queries, query, crop),
        *(_example(bank, number, crop) for number in of_query),
      ]
      for query, of_query in zip(numbers[chosen], place, strict=True)
    ]
    _keep_sheet(setting.workdir, rows, similarity, bank.class_names)
  with kept_pictures.spared("TensorBoard's projector", setting.tell):
    guesses = guess[np.searchsorted(numbers, sample.numbers)]
    _keep_projection(setting.workdir, sample, queries, guesses, crop)


def _keep_sheet(
  workdir: str,
  rows: list[list[dict[str, Any]]],
  similarity: np.ndarray,
  class_names: Sequence[str],
) -> None:
  """Keeps the examples of each row, a query and its neighbours."""
  label = np.array([[example["label"] for example in row] for row in rows])
  images = [[example["image"] for example in row] for row in rows]
  kept_pictures.keep(
    workdir,
    kept_pictures.NEIGHBOURS,
    {
      "images": np.array(images),
      "label": label,
      "similarity": similarity,
      "names": np.array(class_names)[label],
    },
    picture=kept_pictures.NEIGHBOURS,
  )


def _keep_projection(
  workdir: str,
  sample: Sample,
  split: sources.Source,
  guesses: np.ndarray,
  crop: augment.EvalCrop,
) -> None:
  """Writes the projector's files; their images are read once more."""

  def look(number: int) -> tuple[int, np.ndarray]:
    example = _example(split, number, crop)
    return int(example["label"]), projector.thumbnail(example["image"])

  with concurrent.futures.ThreadPoolExecutor(
    loading.available_cores()
  ) as threads:
    labels, images = zip(*threads.map(look, sample.numbers), strict=True)
  names = split.class_names
  kept_pictures.forget(workdir, kept_pictures.PROJECTION)
  projector.write(
    epath.Path(workdir, kept_pictures.TENSORBOARD),
    sample.features,
    {
      "class": [names[k] for k in labels],
      "guess": [names[k] for k in guesses],
      "image": [split.example_name(int(n)) for n in sample.numbers],
    },
    np.stack(images),
  )


def _example(
  source: sources.Source, number: int, crop: augment.EvalCrop
) -> dict[str, Any]:
  """An example with its image as the encoder sees it."""
  return crop.map(sources.read_example(source, int(number)))
