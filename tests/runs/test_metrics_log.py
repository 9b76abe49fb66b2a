import io
import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.util import tensor_util

from byol_flax.runs import metrics_log, progress_line

PARAMS = {
  "encoder": {"kernel": np.zeros((3, 3, 3, 8)), "bias": np.zeros(8)},
  "projector": {"kernel": np.zeros((8, 5))},
}
PARAMETER_COUNT = 216 + 8 + 40


def lines_of(workdir):
  """The records of metrics.jsonl, read as strictly as JSON allows."""

  def refuse(constant):
    raise ValueError(f"{constant} is not JSON")

  text = (workdir / "metrics.jsonl").read_text()
  return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def events_of(workdir):
  """What TensorBoard reads in `workdir`: tag -> [(step, array)]."""
  accumulator = plugin_event_accumulator.EventAccumulator(
    str(workdir / "tensorboard"), size_guidance={"tensors": 0}
  )
  accumulator.Reload()
  tags = accumulator.Tags()["tensors"]
  return {
    tag: [
      (event.step, tensor_util.make_ndarray(event.tensor_proto))
      for event in accumulator.Tensors(tag)
    ]
    for tag in tags
  }


def run_python(code):
  """Runs `code` in a fresh interpreter; returns its output and its errors."""
  kept = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=pathlib.Path(__file__).parents[2],
    env=kept,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout, done.stderr


def test_scalars_reach_the_record_and_tensorboard(tmp_path):
  with metrics_log.MetricsLog(str(tmp_path), writes=True, resume_step=0) as run:
    run.scalars(
      10,
      {"train/byol_loss": 1.5, "train/top1": np.float32(0.25)},
      kind="update",
    )
    run.flush()
    assert [line["step"] for line in lines_of(tmp_path)] == [10]
    run.scalars(20, {"train/byol_loss": 0.5}, kind="update")
  first, second = lines_of(tmp_path)
  assert list(first) == [
    "step",
    "wall_time",
    "kind",
    "train/byol_loss",
    "train/top1",
  ]
  assert (first["train/byol_loss"], first["train/top1"]) == (1.5, 0.25)
  assert 0 <= second["wall_time"] - first["wall_time"] < 60
  assert second["train/byol_loss"] == 0.5
  events = events_of(tmp_path)
  assert events["train/byol_loss"] == [(10, 1.5), (20, 0.5)]
  assert events["train/top1"] == [(10, 0.25)]


def test_values_that_are_not_finite_leave_the_record_strict_json(tmp_path):
  values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0}
  with metrics_log.MetricsLog(str(tmp_path), writes=True, resume_step=0) as run:
    run.scalars(1, values, kind="update")
  (line,) = lines_of(tmp_path)
  assert {name: line[name] for name in values} == {
    "a": "nan",
    "b": "inf",
    "c": "-inf",
    "d": 1.0,
  }
  assert all(
    np.array_equal(events_of(tmp_path)[name][0][1], value, equal_nan=True)
    for name, value in values.items()
  )


def test_images_and_notes_arrive_unchanged(tmp_path):
  images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
  with metrics_log.MetricsLog(str(tmp_path), writes=True, resume_step=0) as run:
    run.images(7, {"views": images})
    run.add_note(7, "remark", "two **views**")
  (line,) = lines_of(tmp_path)
  assert (line["step"], line["kind"]) == (7, "note")
  events = events_of(tmp_path)
  ((step, stored),) = events["views"]
  # TensorFlow stores width, height and then one PNG per image.
  pictures = [np.array(Image.open(io.BytesIO(png))) for png in stored[2:]]
  assert step == 7
  np.testing.assert_array_equal(pictures, images)
  assert [(s, str(t.item(), "utf-8")) for s, t in events["remark"]] == [
    (7, "two **views**")
  ]


def test_hyperparameters_are_nested_in_json_and_dotted_elsewhere(tmp_path):
  config = {"model": {"depth": 50, "sizes": (3, 4)}, "path": None, "on": True}
  with metrics_log.MetricsLog(str(tmp_path), writes=True, resume_step=0) as run:
    run.hyperparameters(config)
  assert json.loads((tmp_path / "config.json").read_text()) == {
    "model": {"depth": 50, "sizes": [3, 4]},
    "path": None,
    "on": True,
  }
  assert metrics_log.flatten(config) == {
    "model.depth": 50,
    "model.sizes": "(3, 4)",
    "path": "None",
    "on": True,
  }
  _, event_file = sorted((tmp_path / "tensorboard").iterdir())
  for name in (b"model.depth", b"model.sizes", b"(3, 4)", b"_hparams_"):
    assert name in event_file.read_bytes()
  assert not list(tmp_path.glob("*.tmp"))


def test_parameter_overview_counts_and_shows_every_parameter(tmp_path):
  with metrics_log.MetricsLog(str(tmp_path), writes=True, resume_step=0) as run:
    assert run.parameter_overview(PARAMS) == PARAMETER_COUNT
  table = (tmp_path / "parameters.txt").read_text()
  for name in ("encoder/kernel", "encoder/bias", "projector/kernel"):
    assert name in table
  ((step, text),) = events_of(tmp_path)["parameters"]
  assert step == 0
  assert f"    Total: {PARAMETER_COUNT}" in str(text.item(), "utf-8")


def test_parameter_overview_takes_shapes_alone(tmp_path):
  shapes = jax.eval_shape(lambda: {"kernel": jax.numpy.zeros((6, 7))})
  with metrics_log.MetricsLog(str(tmp_path), writes=True, resume_step=0) as run:
    assert run.parameter_overview(shapes) == 42
  assert "(6, 7)" in (tmp_path / "parameters.txt").read_text()


@pytest.mark.parametrize(("resume_step", "kept"), [(0, [0]), (20, [0, 10, 20])])
def test_resume_drops_the_steps_to_be_run_again(tmp_path, resume_step, kept):
  with metrics_log.MetricsLog(str(tmp_path), writes=True, resume_step=0) as run:
    for number in range(0, 50, 10):
      run.scalars(number, {"train/byol_loss": float(number)}, kind="update")
  with metrics_log.MetricsLog(
    str(tmp_path), writes=True, resume_step=resume_step
  ):
    assert [line["step"] for line in lines_of(tmp_path)] == kept
  assert [line["train/byol_loss"] for line in lines_of(tmp_path)] == kept


def test_resume_drops_a_torn_line_and_appends_after_it(tmp_path):
  whole = '{"step": 10, "wall_time": 1.0, "a": 2.0}\n'
  (tmp_path / "metrics.jsonl").write_text(whole + '{"step": 20, "wall_ti')
  with metrics_log.MetricsLog(
    str(tmp_path), writes=True, resume_step=20
  ) as run:
    assert (tmp_path / "metrics.jsonl").read_text() == whole
    run.scalars(20, {"a": 3.0}, kind="update")
  assert [line["a"] for line in lines_of(tmp_path)] == [2.0, 3.0]


@pytest.mark.parametrize("torn", [b"4", b'{"st', b"\xff\x00\n", b"\n", b'"a"'])
def test_only_whole_records_survive(tmp_path, torn):
  path = epath.Path(tmp_path) / "metrics.jsonl"
  path.write_bytes(b'{"step": 1}\n' + torn)
  metrics_log.drop_after(path, 5)
  assert path.read_bytes() == b'{"step": 1}\n'


def test_the_record_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
  path = epath.Path(tmp_path) / "metrics.jsonl"
  before = '{"step": 1}\n{"step": 9}\n'
  path.write_text(before)

  def killed(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, "replace", killed)
  with pytest.raises(KeyboardInterrupt):
    metrics_log.drop_after(path, 5)
  assert path.read_text() == before


def test_other_processes_write_nothing_and_load_no_tensorflow(tmp_path):
  workdir = tmp_path / "absent"
  code = f"""
import sys, numpy
from byol_flax.runs.metrics_log import MetricsLog
with MetricsLog({str(workdir)!r}, writes=False, resume_step=3) as run:
  run.scalars(1, {{"a": 1.0}}, kind="update")
  run.images(1, {{"a": numpy.zeros((1, 2, 2, 3), "uint8")}})
  run.text(1, {{"a": "b"}})
  run.hyperparameters({{"a": 1}})
  run.flush()
  print(run.parameter_overview({{"a": numpy.zeros((2, 3))}}))
print([name for name in ("tensorflow", "clu") if name in sys.modules])
"""
  assert run_python(code)[0].split("\n")[:2] == ["6", "[]"]
  assert not workdir.exists()


@pytest.mark.slow
def test_opening_a_report_says_nothing_on_the_console(tmp_path):
  code = f"""
from byol_flax.runs.metrics_log import MetricsLog
with MetricsLog({str(tmp_path)!r}, writes=True, resume_step=0) as run:
  run.scalars(1, {{"a": 1.0}}, kind="update")
"""
  assert run_python(code) == ("", "")
  assert events_of(tmp_path)["a"] == [(1, 1.0)]


@pytest.mark.parametrize(("before", "after"), [(None, "2"), ("0", "0")])
def test_tensorflow_is_quiet_unless_the_user_wants_to_hear_it(
  tmp_path, monkeypatch, before, after
):
  monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", before or "")
  if before is None:
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
  with metrics_log.MetricsLog(str(tmp_path), writes=True, resume_step=0):
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == after


class Terminal(io.StringIO):
  def isatty(self):
    return True


class Clock:
  seconds = 1000.0

  def __call__(self):
    return self.seconds


def make_progress(stream, total_steps=22_400, clock=lambda: 0.0):
  return progress_line.Progress(
    total_steps=total_steps, batch_size=8, stream=stream, clock=clock
  )


def update(progress, step, loss=1.2341, wait=0.031):
  progress.update(
    step,
    headline=("loss", loss),
    images_per_second=812.4,
    data_wait_fraction=wait,
  )


def on_screen(text):
  """The rows a terminal shows after `text`: `\r` goes back, then overwrites."""
  rows = []
  for row in text.split("\n"):
    cells: list[str] = []
    for part in row.split("\r"):
      cells[: len(part)] = part
    rows.append("".join(cells).rstrip())
  return rows


def test_the_line_says_where_the_run_stands():
  stream = io.StringIO()
  update(make_progress(stream), 1200)
  # 21,200 steps of 8 images at 812.4 images/s are 208.8 s.
  assert stream.getvalue() == (
    "step 1,200/22,400  5% | 812 images/s | ETA 3m 29s | loss 1.234 | "
    "data wait 3%\n"
  )


def test_a_run_without_images_per_second_has_no_eta():
  stream = io.StringIO()
  make_progress(stream).update(
    1,
    headline=("loss", math.nan),
    images_per_second=0.0,
    data_wait_fraction=0.0,
  )
  assert "0.0 images/s | ETA ? | loss nan" in stream.getvalue()


def test_a_terminal_never_scrolls(monkeypatch):
  monkeypatch.setenv("COLUMNS", "200")
  stream = Terminal()
  progress = make_progress(stream, total_steps=1000)
  for number in range(1, 1001):
    update(progress, number, loss=10.0 ** (number % 7))
  assert "\n" not in stream.getvalue()
  assert on_screen(stream.getvalue()) == [
    "step 1,000/1,000 100% | 812 images/s | ETA 0s | loss 1000000.000 | "
    "data wait 3%"
  ]
  progress.close()
  progress.close()
  assert stream.getvalue().count("\n") == 1


def test_a_shorter_line_covers_a_longer_one(monkeypatch):
  monkeypatch.setenv("COLUMNS", "200")
  stream = Terminal()
  progress = make_progress(stream)
  update(progress, 1, loss=1e9)
  update(progress, 2, loss=1.0)
  assert on_screen(stream.getvalue())[0].endswith("loss 1.000 | data wait 3%")


def test_a_narrow_terminal_does_not_wrap(monkeypatch):
  monkeypatch.setenv("COLUMNS", "40")
  stream = Terminal()
  update(make_progress(stream), 1200)
  assert on_screen(stream.getvalue()) == [
    "step 1,200/22,400  5% | 812 images/s | "[:39].rstrip()
  ]


def test_a_note_stands_above_the_line(monkeypatch):
  monkeypatch.setenv("COLUMNS", "200")
  stream = Terminal()
  progress = make_progress(stream)
  progress.note("compiling")
  update(progress, 1200)
  progress.note("checkpoint 1200")
  progress.close()
  line = (
    "step 1,200/22,400  5% | 812 images/s | ETA 3m 29s | loss 1.234 | "
    "data wait 3%"
  )
  assert on_screen(stream.getvalue()) == [
    "compiling",
    "checkpoint 1200",
    line,
    "",
  ]


def test_a_log_gets_the_first_the_last_and_a_line_now_and_then():
  stream, clock = io.StringIO(), Clock()
  progress = make_progress(stream, total_steps=100, clock=clock)
  for number in range(1, 101):
    update(progress, number)
    clock.seconds += 0.7
  progress.note("done")
  progress.close()
  steps = [line.split()[1] for line in stream.getvalue().splitlines()[:-1]]
  # 30 s are 43 updates of 0.7 s.
  assert steps == ["1/100", "44/100", "87/100", "100/100"]
  assert stream.getvalue().endswith("\ndone\n")
  assert "\r" not in stream.getvalue()


@pytest.mark.parametrize(
  ("seconds", "text"),
  [
    (0, "0s"),
    (12.4, "12s"),
    (59.6, "1m 00s"),
    (220, "3m 40s"),
    (5 * 3600 + 150, "5h 02m"),
    (3 * 86_400 + 4 * 3600 + 3599, "3d 04h"),
    (math.inf, "?"),
    (math.nan, "?"),
  ],
)
def test_durations_read_like_speech(seconds, text):
  assert progress_line.human_duration(seconds) == text


def test_lines_say_their_kind_or_are_of_an_older_version():
  values = {"knn/test/top1": 0.5}
  assert metrics_log.kind_of({"kind": "update", **values}) == "update"
  assert metrics_log.kind_of(values) == "evaluation"
  assert metrics_log.kind_of({"train/byol_loss": 1.0, **values}) == "update"
