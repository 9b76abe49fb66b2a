"""Writes the report of a reproduced ablation as Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any

from byol_flax.reports import orderings
from byol_flax.reports.markdown import cell, grid, number

# More of one verdict than this are in the JSON file only.
_MOST_LISTED = 40


def render(report: Mapping[str, Any]) -> str:
  """The text of a report of `reproduction.make`."""
  lines = [
    f"# {report['title']}",
    "",
    f"Paper: {report['place']}; ImageNet, top-1 of linear evaluation. Ours: "
    f"scale {report['scale']}, seeds {', '.join(map(str, report['seeds']))}. "
    "All numbers are percentages: the mean, ± half of the range of the seeds.",
  ]
  if report["changed"]:
    changed = (f"`{key}={value}`" for key, value in report["changed"].items())
    lines += ["", f"Changed in all rows: {', '.join(changed)}."]
  if len(versions := _versions(report)) > 1:
    lines += [
      "",
      f"The runs are of {len(versions)} versions of the code "
      f"({', '.join(versions)}); the JSON file says which.",
    ]
  if report["remark"]:
    lines += ["", report["remark"]]
  lines += ["", *_table(report), *_remarks(report), "", *_orderings(report)]
  return "\n".join(lines) + "\n"


def _versions(report: Mapping[str, Any]) -> list[str]:
  """Commits by which any of the runs was made."""
  rows = (row["versions"].values() for row in report["rows"])
  return sorted({one for of_row in rows for some in of_row for one in some})


def _table(report: Mapping[str, Any]) -> Iterator[str]:
  """A line for each row."""
  measures = report["measures"]
  head = ["", "paper", *measures, "seeds", "settings"]
  rows = []
  for row in report["rows"]:
    paper = row["paper"]["top-1"]
    rows.append(
      (
        cell(row["label"]),
        paper["text"] if paper else "–",
        *(_ours(row, measure) for measure in measures),
        _seeds(row, measures[0]) if measures else "–",
        _settings(row),
      )
    )
  yield from grid(head, rows, right=range(1, 2 + len(measures)))


def _ours(row: Mapping[str, Any], measure: str) -> str:
  """Mean and spread, or why there is none."""
  found = row["ours"].get(measure)
  if not found and row["left_out"]:
    return "left out"
  if not found:
    return "diverged" if row["diverged"] else "–"
  if found["spread"] is None:
    return number(found["mean"])
  return f"{number(found['mean'])} ± {found['spread']:.1f}"


def _seeds(row: Mapping[str, Any], measure: str) -> str:
  """The value of each seed."""
  found = row["ours"].get(measure)
  values = [number(x) for x in found["seeds"].values()] if found else []
  return ", ".join([*values, *("diverged" for _ in row["diverged"])]) or "–"


def _settings(row: Mapping[str, Any]) -> str:
  """What the row changes here; nothing for the baseline."""
  if row["left_out"] and not row["ours"]:
    return "–"
  settings = row["settings"]
  return ", ".join(f"`{k}={v}`" for k, v in settings.items()) or "baseline"


def _remarks(report: Mapping[str, Any]) -> Iterator[str]:
  """What is to be known of single rows."""
  for row in report["rows"]:
    said = [
      f"in the paper: {row['remark']}" if row["remark"] else "",
      row["left_out"],
      *(
        f"seed {seed} diverged: {why}" for seed, why in row["diverged"].items()
      ),
    ]
    for one in filter(None, said):
      yield from ("", f"{row['label']}: {one}")


def _orderings(report: Mapping[str, Any]) -> Iterator[str]:
  """How many orderings of the paper hold, and which."""
  found = report["orderings"]
  yield "## Orderings of the paper"
  yield ""
  if not found:
    yield "There is no pair of rows to compare yet."
    return
  counts = {
    verdict: sum(one["verdict"] == verdict for one in found)
    for verdict in orderings.VERDICTS
  }
  yield (
    f"The paper tells {len(found)} pairs of these rows apart: their means "
    "differ by more than both spreads together, and a spread is at most 0.25 "
    "where none is printed. Judged in the same way by "
    f"“{report['measures'][0]}”, of these orderings {counts[orderings.HOLDS]} "
    f"hold, {counts[orderings.FAILS]} do not hold, and the spread cannot "
    f"decide {counts[orderings.UNDECIDED]}."
  )
  if counts[orderings.ALIKE]:
    yield (
      f"The other {counts[orderings.ALIKE]} are of rows that have the same "
      "settings at this scale."
    )
  if counts[orderings.DIVERGED]:
    yield (
      f"{counts[orderings.DIVERGED]} more cannot be judged, because runs of a "
      "row diverged: those that are left are no fair sample of it."
    )
  if len(report["seeds"]) == 1:
    yield "A single seed has no spread, so nothing is decided."
  labels = {row["name"]: row["label"] for row in report["rows"]}
  for verdict in (
    orderings.FAILS,
    orderings.UNDECIDED,
    orderings.DIVERGED,
    orderings.HOLDS,
  ):
    these = [one for one in found if one["verdict"] == verdict]
    if these:
      yield from ("", f"### {verdict[0].upper()}{verdict[1:]}", "")
      yield from _listed(these, labels)


def _listed(
  these: list[Mapping[str, Any]], labels: Mapping[str, str]
) -> Iterator[str]:
  """The orderings of a verdict, those with the largest difference first."""
  rows = [
    (
      cell(labels[one["better"]]),
      cell(labels[one["worse"]]),
      number(one["paper"], sign=True),
      "–" if one["ours"] is None else number(one["ours"], sign=True),
    )
    for one in sorted(these, key=lambda one: -abs(one["ours"] or 0))
  ]
  head = ("better in the paper", "than", "paper, by", "ours, by")
  yield from grid(head, rows[:_MOST_LISTED], right=(2, 3))
  if len(rows) > _MOST_LISTED:
    yield f"\nThe JSON file has {len(rows) - _MOST_LISTED} more."
