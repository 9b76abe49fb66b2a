"""A tiny sweep on digits: cut off, resumed, shared, reported."""

import contextlib
import dataclasses
import io
import json

import cv2
import numpy as np
import pytest

from byol_flax.evaluation import encoder, linear
from byol_flax.reproduce import sweep
from byol_flax.runs.distributed import Processes
from input_pipeline.errors import UsageError
from tests.cut_off import Killed, Out
from tests.evaluation import settings
from tests.reproduce.test_plan import planned

FEW = (
  "--config.epochs=0.2",  # four updates
  "--config.warmup_epochs=0",
  "--config.model.encoder.width=0.25",
)


def some_of(table, rows, *flags):
  whole = planned(table, *FEW, *flags)
  return dataclasses.replace(
    whole, rows={row: whole.rows[row] for row in rows}, left_out={}
  )


def run(plan, workdir, out, devices=1):
  machine = sweep.Machine(
    mesh=settings.mesh_of(devices),
    processes=Processes(),
    out=out,
    console=io.StringIO(),
    nowhere=io.StringIO(),
  )
  sweep.run(plan, str(workdir), machine)
  return json.loads((workdir / f"{plan.table}.json").read_text())


def times(workdir):
  return {
    path: path.stat().st_mtime_ns for path in workdir.rglob("result.json")
  }


@contextlib.contextmanager
def other_images(workdir):
  """As if the sweep had begun with others."""
  path = workdir / "evaluation.json"
  before = path.read_text()
  identity = json.loads(before)
  identity["images"]["data.split"]["data_fingerprint"] = "another"
  path.write_text(json.dumps(identity))
  yield
  path.write_text(before)


def test_rows_that_the_devices_cannot_train_are_told_before_anything(tmp_path):
  plan = some_of("16", ("byol_256",))
  assert plan.rows["byol_256"].accumulation_steps == 16
  with pytest.raises(UsageError, match=r"^16/byol_256: batch_size 64 cannot"):
    run(plan, tmp_path / "sweep", Out(), devices=8)
  assert not list(tmp_path.iterdir())


def test_all_rows_are_measured_on_the_same_crops_and_flips():
  plan = planned("17", scale="imagenet")
  transforms = set()
  for row in ("byol_baseline", "byol_crop", "simclr_no_flip"):
    config = plan.rows[row].copy_and_resolve_references()
    config.model.encoder.update(architecture="resnet8", width=0.25)
    found = encoder.without_weights(config, settings.mesh_of(1))
    shown = sweep.shown_as_all(found, plan.baseline)
    transforms.add(linear.transform("crop_flip", shown.config))
  (only,) = transforms
  assert only.view.flip_probability == 0.5


def test_images_that_a_run_could_not_read_may_be_removed(tmp_path):
  for name in ("a/1.png", "b/2.png"):
    path = tmp_path / "train" / name
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
  plan = planned(
    "5a", f"--config.data.name=folder:{tmp_path}", "--config.data.split=train"
  )
  assert len(sweep.images_of(plan, str(tmp_path))) == 2
  # The run began anew since, because it had no checkpoint yet.
  aside = tmp_path / "runs" / "c0ffee-seed0" / "training" / "replaced-1"
  aside.mkdir(parents=True)
  (aside / "unreadable-0.txt").write_text("1\t9\ta/3.png\n")
  assert len(sweep.images_of(plan, str(tmp_path))) == 3


@pytest.mark.slow
def test_folders_of_evaluations_have_the_names_they_always_had(tmp_path):
  for scale, row, name in (
    ("digits", "17/byol_crop", "few_label-4dd6b9425916"),
    ("imagenet", "17/byol_baseline", "linear-bca969d3e9e9"),
    ("imagenet", "17/byol_crop", "linear-bca969d3e9e9-alike"),
  ):
    table, row = row.split("/")
    plan = planned(table, scale=scale)
    (one,) = (run for run in plan.runs() if run.row == row)
    assert sweep.evaluation_of(plan, one, str(tmp_path)).name == name


@pytest.mark.slow
def test_a_sweep_goes_on_shares_its_runs_and_records_what_diverged(tmp_path):
  plan = some_of("5a", ("initialisation", "0.99", "0.9"))
  plan.rows["0.9"].objective.normalization = "none"
  plan.rows["0.9"].objective.negatives_weight = 1.0
  with pytest.raises(Killed):
    run(plan, tmp_path, Out(last="run 2 of 2"))
  before = times(tmp_path)
  assert len(before) == 1
  text = (tmp_path / "5a.md").read_text()
  assert "| moving average, τ = 0.99 (BYOL) | 72.5 | – | – | – |" in text

  out = Out()
  report = run(plan, tmp_path, out)
  assert "left out: 5a/0.9: Negatives are compared by cosines" in out.getvalue()
  assert "1 of 3 runs are to be done" in out.getvalue()
  assert "run 1 of 1: 5a/0.99, seed 0" in out.getvalue()
  assert before.items() <= times(tmp_path).items()
  values = {
    row["name"]: next(iter(row["ours"].values()))["seeds"]["0"]
    for row in report["rows"]
    if row["name"] != "0.9"
  }
  assert all(0 < value < 100 for value in values.values())
  assert values["initialisation"] != values["0.99"]
  assert (tmp_path / "5a.png").exists()

  # Another table shares the folder; a run of it diverges, and it goes on.
  rows = ("learning_rate_1", "learning_rate_0.3")
  shared = some_of("15", rows)
  shared.rows[rows[0]].base_learning_rate = 1e30
  for undone in (1, 0):
    out = Out()
    report = run(shared, tmp_path, out)
    assert f"{undone} of 2 runs are to be done" in out.getvalue()
    assert ("diverged: " in out.getvalue()) == undone
    assert "became" in report["rows"][0]["diverged"]["0"]
    assert report["rows"][1]["ours"]

  # What was done is only told, also on devices that could not train it.
  report = run(shared, tmp_path, Out(), devices=3)
  assert report["rows"][1]["ours"]

  with other_images(tmp_path), pytest.raises(UsageError, match="not those"):
    run(plan, tmp_path, Out())
  with pytest.raises(UsageError, match=r"changed\.model\.encoder\.width"):
    run(
      some_of("5a", ("1",), "--config.model.encoder.width=2"), tmp_path, Out()
    )
