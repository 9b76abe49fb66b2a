"""Which result fills which place of the paper's tables.

A result is the JSON object that `byol evaluate` leaves; a part is one of the
evaluations of a suite, by its name in configs/paper.py.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from byol_flax.reports import paper
from input_pipeline import paths

Result = Mapping[str, Any]

_TOPS = {"top-1": "top1", "top-5": "top5"}


@dataclasses.dataclass(frozen=True)
class Cell:
  """A place in a table.

  Attributes:
    column: of `paper.Table`.
    parts: that may fill it; the first one that does counts.
    find: result -> value, or None if it has none. It is in the unit of the
      column, but in [0, 1] where that is a percentage.
    data: what the result must be measured on; "" for anything.
  """

  column: str
  parts: tuple[str, ...]
  find: Callable[[Result], float | None]
  data: str = ""

  def value(self, result: Result) -> float | None:
    """The result's value for this place, or None."""
    if self.data and data_of(result) != self.data:
      return None
    return self.find(result)


def data_of(result: Result) -> str:
  """The data set of a result, without its version."""
  return without_version(result["splits"][-1]["name"])


def without_version(data_set: str) -> str:
  """`name[/config]` of `name[/config][:version]`; paths stay whole."""
  kind, _, rest = data_set.partition(":")
  return data_set if paths.has_path(kind, rest) else kind


def of_tables() -> dict[str, list[Cell]]:
  """The places of each table, by its number."""
  plain = _linear(pretraining=False, regularised=False)
  own = [Cell(name, ("linear",), plain(key)) for name, key in _TOPS.items()]
  places = (
    ("Places365", "linear_places365", paper.PLACES365),
    ("ImageNet", "linear_imagenet", paper.IMAGENET),
  )
  return {
    "1": own,
    "2": [
      Cell(
        f"{percent} %, {name}", (f"semi_supervised_{percent}",), _labels(key)
      )
      for name, key in _TOPS.items()
      for percent in (1, 10)
    ],
    "3": [
      Cell(f"{name}, {how}", (f"{part}_{key}",), _metric)
      for part, how in (("transfer", "linear"), ("finetune", "fine-tuned"))
      for key, name in paper.SETS.items()
    ],
    "4a": [
      Cell("AP50", ("detection",), _score("ap50")),
      Cell("mIoU", ("segmentation",), _score("mean_iou")),
    ],
    "4b": [
      Cell(name, ("depth",), _depth(key)) for key, name in paper.DEPTH.items()
    ],
    "7": [
      Cell(f"{variant}, {name}", ("linear",), _linear(*how)(key))
      for variant, how in paper.VARIANTS.items()
      for name, key in _TOPS.items()
    ],
    "8": [
      Cell(name, ("semi_supervised_100",), _labels(key))
      for name, key in _TOPS.items()
    ],
    "9": [
      *own,
      *(
        Cell(column, ("supervised",), _score(key))
        for column, key in zip(paper.SUPERVISED, _TOPS.values(), strict=True)
      ),
    ],
    "13": [
      *(
        Cell(name, ("linear", part), plain("top1"), data_set)
        for name, part, data_set in places
      ),
      *(
        Cell(name, (f"transfer_{key}",), _metric)
        for key, name in paper.SETS_OF_TABLE_13.items()
      ),
    ],
  }


def beside_the_paper(
  parts: Mapping[str, Result],
) -> list[tuple[str, str, float]]:
  """(name, part, value) of what was measured and has no table in the paper."""
  found: list[tuple[str, str, float]] = []
  if released := parts.get("linear_released"):
    for row in released["rows"]:
      for name, key in _TOPS.items():
        what = f"linear evaluation as in the authors' code, {name}"
        found.append((what, "linear_released", row[key]))
  if knn := parts.get("knn"):
    for vote, by_k in knn["top1"].items():
      for k, value in by_k.items():
        found.append((f"{k} nearest neighbours, {vote} vote", "knn", value))
  return found


def _linear(
  pretraining: bool, regularised: bool
) -> Callable[[str], Callable[[Result], float | None]]:
  """Key of a score -> what finds it in the row of such classifiers."""
  augmentation = "pretraining" if pretraining else "crop_flip"

  def find(key: str, result: Result) -> float | None:
    for row in result["rows"]:
      if (row["augmentation"], row["logit_regularisation"]) == (
        augmentation,
        regularised,
      ):
        return float(row[key])
    return None

  return lambda key: lambda result: find(key, result)


def _labels(key: str) -> Callable[[Result], float | None]:
  """Finds a score of fine-tuning on the only part of the labels."""
  return lambda result: (
    float(result["rows"][0][key]) if len(result["rows"]) == 1 else None
  )


def _depth(key: str) -> Callable[[Result], float | None]:
  """Finds a measure of depth in the convention that the config names."""
  return lambda result: float(
    result["metrics"][result["config"]["convention"]][key]
  )


def _score(key: str) -> Callable[[Result], float | None]:
  """Finds a score that a result has by its name."""
  return lambda result: float(result[key])


def _metric(result: Result) -> float:
  """The score of a transfer."""
  return float(result[result["config"]["metric"]])
