"""Which rows of a table are one program, and what a dry run says."""

import dataclasses
import io
import re

import pytest

from byol_flax import slices
from byol_flax.reproduce import cost
from input_pipeline.errors import RunError
from tests import forks
from tests.preflight.test_preflight import compiled
from tests.reproduce.test_plan import planned


@pytest.mark.slow
@pytest.mark.parametrize(
  ("table", "programs"),
  [
    ("5a", 2),  # with the target network, and without
    ("15", 1),
    ("16", 7 + 7),
    ("3b", 2),  # the host draws the views, so the step does not know of them
    ("18", 2),  # with negatives, and without
    ("21", 3),  # multipliers are one; the optimal predictor is another
  ],
)
def test_rows_that_take_the_same_time_are_one_program(table, programs):
  plan = planned(table, scale="imagenet")
  found = {
    cost.program_of(plan.baseline, config) for config in plan.rows.values()
  }
  assert len(found) == programs


def test_each_program_is_compiled_once_and_runs_are_added_up():
  asked = []

  def compile_update(config):
    asked.append(config.objective.target)
    if config.objective.target == "online_stopped":
      raise RunError("the compiler failed")
    return dataclasses.replace(
      compiled(), seconds=1.8, cycle_seconds=3.6, total_steps=1000
    )

  out = io.StringIO()
  cost.tell(
    planned("5a", scale="imagenet", seeds=3),
    slices.find("v3-64"),
    compile_update,
    price=2.0,
    stream=out,
  )
  assert asked == ["average", "online_stopped"]
  lines = out.getvalue().splitlines()
  (of_row,) = [line for line in lines if line.startswith("0.9  ")]
  assert "base_target_decay=0.9; fits: " in of_row
  assert of_row.endswith("0.5 to 1 h a run, 64 device-hours")
  assert lines[-2].endswith("; the compiler failed")
  assert lines[-1] == (
    "in all 12 trainings: 12 h one after another, 768 device-hours, 1,536 at "
    "your price; evaluations not counted; 3 that cannot run there not counted"
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["6", "--workdir=x"], "There is no ablation '6'"),
    (["5a", "--workdir=x", "--scale=digit"], "Did you mean 'digits'"),
    (["5a", "--workdir=x", "--seeds=0"], "--seeds is 0; expected a whole"),
    (
      ["5a", "--workdir=x", "--config.seed=4294967295", "--seeds=2"],
      "The last seed is 4294967296; expected a whole number",
    ),
    (["5a", "--workdir=x", "--config=configs/byol.py"], "no --config=FILE"),
    (["5a", "--workdir=x", "--slice=v3-8"], "add --dry-run"),
    (["5a"], "needs --workdir=DIR"),
  ],
)
def test_mistakes_are_told_in_a_sentence(tmp_path, flags, message):
  result = forks.byol("reproduce", *flags, cwd=tmp_path)
  assert result.returncode == 2, result.stderr
  assert re.search(re.escape(message), result.stderr)
  assert "Traceback" not in result.stderr
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_a_slice_a_dry_run_lists_the_rows():
  result = forks.byol("reproduce", "16", "--dry-run", "--seeds=2")
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  assert lines[0].startswith("Batch size (Table 16, App. F.2) at the scale dig")
  assert "byol_256     accumulation_steps=16" in lines
  assert "byol_4096    the baseline" in lines
  assert lines[-1].startswith("simclr_64 is left out: ")
