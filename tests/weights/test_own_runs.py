"""What an export tells of a run, and what it keeps to itself."""

import json

from byol_flax.weights import own_runs


def test_paths_of_this_machine_stay_here():
  told = own_runs.without_paths(
    {
      "data": {"name": "folder:/data/of/mine/photos", "split": "train[:90%]"},
      "tfds": "imagenet2012_subset/1pct:5.0.0",
      "folders": [
        "/data/of/mine/runs/x@3",
        "gs://bucket/a/b",
        "unlabelled:/a/b c",
      ],
      "numbers": (3, None, 0.5),
    }
  )
  assert told == {
    "data": {"name": "folder:photos", "split": "train[:90%]"},
    "tfds": "imagenet2012_subset/1pct:5.0.0",
    "folders": ["x@3", "b", "unlabelled:b c"],
    "numbers": [3, None, 0.5],
  }


def test_metrics_are_those_of_the_last_evaluation_before(tmp_path):
  lines = [
    {
      "step": 10,
      "kind": "evaluation",
      "knn/test/top1": 0.5,
      "wall_time": 1.7e9,
    },
    {"step": 15, "kind": "update", "train/byol_loss": 1.0},
    {"step": 20, "kind": "evaluation", "knn/test/top1": 0.6},
    {"step": 30, "kind": "evaluation", "knn/test/top1": 0.7},
  ]
  text = "\n".join(map(json.dumps, lines))
  (tmp_path / "metrics.jsonl").write_text(text + '\n{"step": 2')
  assert own_runs.metrics(f"{tmp_path}@25", 25) == {"knn/test/top1": 0.6}
  assert own_runs.metrics(str(tmp_path), 12) == {"knn/test/top1": 0.5}
  assert own_runs.metrics(str(tmp_path / "nowhere"), 12) == {}
