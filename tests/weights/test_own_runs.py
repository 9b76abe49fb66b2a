"""What an export tells of a run, and what it keeps to itself."""

import json

import pytest

from byol_flax.weights import own_runs
from configs import byol, simclr


@pytest.mark.parametrize(
  ("changes", "by"),
  [
    ({}, "byol"),
    ({"base_target_decay": 0.9, "batch_size": 8}, "byol"),
    ({"objective": {"negatives_weight": 0.5}}, "variant"),
    ({"objective": {"target": "online_stopped"}}, "variant"),
    ({"objective": {"optimal_predictor": True}}, "variant"),
    ({"model": {"predictor": {"layers": 0}}}, "variant"),
  ],
)
def test_a_run_says_how_it_trains(changes, by):
  config = byol.get_config()
  config.update(changes)
  assert own_runs.trained_by(config.to_dict(), True) == by
  assert own_runs.trained_by(config.to_dict(), False) == "labels"


def test_simclr_is_not_byol():
  config = simclr.get_config().to_dict()
  assert own_runs.trained_by(config, True) == "variant"


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
