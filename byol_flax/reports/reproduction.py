"""The report of a reproduced ablation: what was found, beside the paper's.

It is made from the results of the runs alone.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from byol_flax.reports import orderings
from byol_flax.reports.ablations import ABLATIONS


@dataclasses.dataclass(frozen=True)
class Found:
  """What the runs of a row have found.

  Attributes:
    values: seed -> measure -> value in percent; the first measure is the one
      that is compared.
    diverged: seed -> the sentence of a run that diverged.
    left_out: why the row has no runs, or no more of them; "" if it has.
    versions: seed -> commits that trained and measured its run.
    settings: what the row changes at this scale, key -> value.
    folder: of its runs, without the seed; the same for equal settings.
  """

  values: Mapping[int, Mapping[str, float]]
  diverged: Mapping[int, str]
  left_out: str
  versions: Mapping[int, Sequence[str]]
  settings: Mapping[str, Any]
  folder: str


def measures_of(result: Mapping[str, Any]) -> dict[str, float]:
  """Measure -> value in percent, of a result of few_label or of linear."""
  if result["protocol"] == "few_label":
    (row,) = result["table"]
    per_class, (mean, _) = next(iter(row["linear"].items()))
    neighbours = result["config"]["neighbours"]
    return {
      f"linear, {per_class} label(s) a class": 100 * mean,
      f"{neighbours}-NN, all labels": 100 * row["knn"],
    }
  (row,) = result["rows"]
  return {"top-1": 100 * row["top1"], "top-5": 100 * row["top5"]}


def make(
  table: str,
  scale: str,
  seeds: Sequence[int],
  changed: Mapping[str, Any],
  found: Mapping[str, Found],
) -> dict[str, Any]:
  """Returns the report as a JSON object.

  Args:
    table: key of `ABLATIONS`.
    scale: where the rows were run.
    seeds: that were asked for.
    changed: settings that the command changed in all rows.
    found: by row.
  """
  ablation = ABLATIONS[table]
  measures = _measures(found)
  headline = measures[0] if measures else None
  return {
    "table": table,
    "title": ablation.title,
    "place": ablation.place,
    "remark": ablation.remark,
    "scale": scale,
    "seeds": list(seeds),
    "changed": dict(changed),
    "measures": measures,
    "rows": [_row(table, name, one, measures) for name, one in found.items()],
    "orderings": [
      dataclasses.asdict(one) for one in _orderings(table, found, headline)
    ],
  }


def _measures(found: Mapping[str, Found]) -> list[str]:
  """The measures of all results, in their order."""
  names = (x for one in found.values() for v in one.values.values() for x in v)
  return list(dict.fromkeys(names))


def _row(
  table: str, name: str, found: Found, measures: Sequence[str]
) -> dict[str, Any]:
  """A row: the paper's numbers, and ours."""
  row = ABLATIONS[table].rows[name]
  numbers = {"top-1": row.top1, "top-5": row.top5}
  return {
    "name": name,
    "label": row.label,
    "remark": row.remark,
    "paper": {
      top: dataclasses.asdict(number) if number else None
      for top, number in numbers.items()
    },
    "ours": {
      measure: _summary({s: v[measure] for s, v in found.values.items()})
      for measure in measures
      if found.values
    },
    **{
      key: value
      for key, value in dataclasses.asdict(found).items()
      if key != "values"
    },
  }


def _summary(values: Mapping[int, float]) -> dict[str, Any]:
  """Mean, spread and the value of each seed."""
  return {
    "mean": statistics.fmean(values.values()),
    "spread": orderings.spread(list(values.values())),
    "seeds": dict(values),
  }


def _orderings(
  table: str, found: Mapping[str, Found], measure: str | None
) -> list[orderings.Ordering]:
  """The orderings by one measure; none if nothing was measured."""
  if measure is None:
    return []
  rows = ABLATIONS[table].rows
  return orderings.judge(
    {name: row.top1 for name, row in rows.items() if row.top1},
    {
      name: [value[measure] for value in one.values.values()]
      for name, one in found.items()
    },
    # An untrained network is not the one that training makes of it.
    {name: f"{one.folder} {rows[name].trained}" for name, one in found.items()},
    {name for name, one in found.items() if one.diverged},
  )
