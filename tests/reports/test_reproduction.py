"""The report of an ablation, made from results that were made by hand."""

import json

from byol_flax.reports import (
  reproduction,
  reproduction_chart,
  reproduction_text,
)
from byol_flax.reports.reproduction import Found

MEASURE = "linear, 1 label(s) a class"


def found(*values, **more):
  seeds = {
    seed: {MEASURE: value, "5-NN, all labels": 99.0}
    for seed, value in enumerate(values)
  }
  given = {
    "diverged": {},
    "left_out": "",
    "versions": dict.fromkeys(seeds, ("c0ffee",)),
    "settings": {},
    "folder": "abc",
  }
  return Found(seeds, **(given | more))


ROWS = {
  "l2": found(80.0, 84.0, 85.0),
  "layer_norm": found(80.0, 81.0, folder="b", settings={"objective.a": "b"}),
  "none": found(60.0, 70.0, folder="c", diverged={2: "loss became nan"}),
  "batch_norm": found(left_out="This scale has no | batches.", folder=""),
}
REPORT = reproduction.make("20", "digits", (0, 1, 2), {"epochs": 3.0}, ROWS)


def test_what_results_are_read_as():
  result = {
    "protocol": "few_label",
    "config": {"neighbours": 5},
    "table": [{"linear": {"1": [0.85, 0.1]}, "knn": 0.97}],
  }
  assert list(reproduction.measures_of(result)) == [MEASURE, "5-NN, all labels"]
  assert reproduction.measures_of(result)[MEASURE] == 85
  result = {"protocol": "linear", "rows": [{"top1": 0.5, "top5": 0.75}]}
  assert reproduction.measures_of(result) == {"top-1": 50, "top-5": 75}


def test_the_report_has_paper_and_ours_side_by_side():
  assert json.loads(json.dumps(REPORT, allow_nan=False)) | {
    "rows": REPORT["rows"]  # JSON makes texts of the seeds
  }
  rows = {row["name"]: row for row in REPORT["rows"]}
  assert rows["layer_norm"]["paper"]["top-1"]["text"] == "72.5 ± 0.4"
  assert rows["l2"]["ours"][MEASURE]["mean"] == 83
  assert rows["l2"]["ours"][MEASURE]["spread"] == 2.5
  assert rows["batch_norm"]["ours"] == {}
  verdicts = {
    (one["better"], one["worse"]): one["verdict"] for one in REPORT["orderings"]
  }
  # batch_norm was left out, and l2 and layer_norm are alike in the paper.
  assert verdicts == dict.fromkeys(
    [("l2", "none"), ("layer_norm", "none")], "a run diverged"
  )


def test_the_text():
  text = reproduction_text.render(REPORT)
  assert (
    "| l2 (BYOL) | 72.5 | 83.0 ± 2.5 | 99.0 ± 0.0 | 80.0, 84.0, 85.0 |"
    in (text)
  )
  assert "| none | 67.4 | 65.0 ± 5.0 |" in text
  assert "60.0, 70.0, diverged" in text
  assert "| batch norm | 65.3 | left out | left out | – | – |" in text
  assert "none: seed 2 diverged: loss became nan" in text
  assert "of these orderings 0 hold, 0 do not hold" in text
  assert "2 more cannot be judged, because runs of a row" in text
  assert "`epochs=3.0`" in text
  assert "versions of the code" not in text
  ours = {**ROWS, "l2": found(80.0, versions={0: ["c0ffee", "decade"]})}
  other = reproduction.make("20", "digits", (0, 1, 2), {}, ours)
  assert "2 versions of the code (c0ffee, decade)" in (
    reproduction_text.render(other)
  )
  assert "| l2 (BYOL) | none | +5.1 | +18.0 |" in text


def test_nothing_is_decided_by_one_seed_or_before_the_first_run():
  one = {name: found(80.0, folder=name) for name in ROWS}
  text = reproduction_text.render(
    reproduction.make("20", "digits", (0,), {}, one)
  )
  assert "of these orderings 0 hold, 0 do not hold" in text
  assert "A single seed has no spread" in text
  none = dict.fromkeys(ROWS, found())
  report = reproduction.make("20", "digits", (0,), {}, none)
  assert "no pair of rows to compare yet" in reproduction_text.render(report)
  assert reproduction_chart.draw(report).shape[2] == 3


def test_the_picture_shows_ours():
  without = reproduction.make(
    "20", "digits", (0, 1, 2), {}, dict.fromkeys(ROWS, found())
  )
  ours, theirs = map(reproduction_chart.draw, (REPORT, without))
  assert ours.shape == theirs.shape
  half = ours.shape[1] // 2
  assert (ours[:, half:] != theirs[:, half:]).any()
