"""Where the time of a run goes: sums, repeated updates, kills, the command."""

import json
import time
import types

import numpy as np
import pytest

from byol_flax import main
from byol_flax.runs import goodput, start_clock, time_spent
from input_pipeline.errors import RunError, UsageError
from tests.runs import test_loop


def attempts(workdir):
  text = (workdir / goodput.FILE).read_text()
  return [json.loads(line) for line in text.splitlines()]


def test_every_moment_of_an_attempt_is_in_one_span(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  expected = dict.fromkeys(goodput.SPANS, 0.0)
  now = [1000.0]
  clocks = types.SimpleNamespace(
    monotonic=lambda: now[0], time=lambda: 5e8 + now[0]
  )
  for module in (start_clock, time_spent):
    monkeypatch.setattr(module, "time", clocks)

  def rest(span):
    seconds = rng.uniform(1, 20)
    now[0] += seconds
    expected[span] += seconds

  def fail():
    rest("saving")
    raise KeyError

  clock = start_clock.StartClock(997.0)
  clock.end("import")
  expected["starting"] = 3
  with time_spent.Attempt(
    str(tmp_path),
    step=4,
    batch_size=7,
    about={"devices": "two"},
    start_clock=clock,
    writes=True,
  ) as attempt:
    rest("starting")
    for step in (5, 6, 7):
      with attempt.on("waiting"):
        rest("waiting")
        with pytest.raises(KeyError), attempt.on("saving"):
          fail()
        rest("waiting")
      with attempt.update(step, compiles=step == 5):
        rest("compiling" if step == 5 else "updating")
      rest("updating")
    with attempt.on("evaluating"):
      rest("evaluating")
    attempt.end()
    rest("starting")
  wall = now[0] - 997
  (line,) = attempts(tmp_path)
  assert (line["step"], line["reached"], line["devices"]) == (4, 7, "two")
  assert line["images"] == {"updating": 21, "repeating": 0}
  assert sum(line["seconds"].values()) == pytest.approx(wall, abs=0.1)
  assert line["began"] == pytest.approx(5e8 + 997, abs=0.1)
  for span, seconds in expected.items():
    assert line["seconds"][span] == pytest.approx(seconds, abs=0.1)


def test_other_processes_write_nothing(tmp_path):
  with time_spent.Attempt(
    str(tmp_path),
    step=0,
    batch_size=1,
    about={},
    start_clock=start_clock.StartClock(time.monotonic()),
    writes=False,
  ):
    pass
  assert not list(tmp_path.iterdir())


def test_updates_made_twice_are_not_useful_twice(tmp_path):
  with pytest.raises(RunError):  # which saves nothing
    test_loop.run(tmp_path, end=(13, RunError()))
  begun = time.monotonic()
  test_loop.run(tmp_path, start=7)
  wall = time.monotonic() - begun
  first, second = attempts(tmp_path)
  assert [first["reached"], second["reached"]] == [12, 20]
  assert first["images"] == {"updating": 48, "repeating": 0}
  assert second["images"] == {"updating": 32, "repeating": 20}
  assert second["seconds"]["repeating"] > 0
  # It pretends to have begun 1000 s ago, which is after `begun` by a moment.
  assert 1000 <= sum(second["seconds"].values()) <= wall + 1000.1
  for span in ("saving", "evaluating", "waiting", "compiling"):
    assert 0 < second["seconds"][span] < 500, span
  # Both pretend to have begun long ago, so nothing lies between them.
  found = goodput.of_workdir(str(tmp_path))
  assert found.seconds["restarting"] == 0
  assert found.images["updating"] == 20 * 4


@pytest.mark.parametrize(
  ("seconds", "reached"),
  [(1e6, 7), (0.01, 12)],
  ids=["at the save before", "by time"],
)
def test_of_a_killed_attempt_counts_what_was_written_last(
  tmp_path, monkeypatch, seconds, reached
):
  monkeypatch.setattr(time_spent, "_LOCAL", seconds)
  left = []

  class Kill(RunError):
    def __init__(self):
      time.sleep(0.1)
      left.append((tmp_path / goodput.FILE).read_bytes())

  def batches(start, bad=None, end=None):
    for k in range(start + 1, 13):
      yield {"x": np.float32(k)}
    raise Kill

  with monkeypatch.context() as patch:
    patch.setattr(test_loop, "numbers", batches)
    with pytest.raises(Kill):
      test_loop.run(tmp_path)
  (tmp_path / goodput.FILE).write_bytes(left[0])
  test_loop.run(tmp_path, start=7)
  found = attempts(tmp_path)
  assert found[0]["reached"] == reached
  assert found[0]["images"]["updating"] == reached * 4
  assert found[1]["images"]["repeating"] == (reached - 7) * 4
  # However little was known, each update is useful once.
  assert goodput.totals(found).images["updating"] == 20 * 4


def test_totals_are_the_sums_of_all_attempts_and_of_the_gaps():
  rng = np.random.default_rng(1)
  spans = len(goodput.SPANS)
  spent, images = rng.uniform(0, 50, (5, spans)), rng.integers(0, 9, (5, 2))
  gaps = np.array([3.5, 0.25, -2.0, 1e3])  # of -2 the clock is at fault
  began = 1e9 + np.concatenate([[0], np.cumsum(spent.sum(1)[:-1] + gaps)])
  lines = [
    {
      "began": began[k],
      "seconds": dict(zip(goodput.SPANS, spent[k].tolist(), strict=True)),
      "images": dict(zip(goodput.UPDATES, images[k].tolist(), strict=True)),
    }
    for k in range(5)
  ]
  found = goodput.totals(lines)
  whole = [*spent.sum(0), 3.5 + 0.25 + 1e3]
  np.testing.assert_allclose(list(found.seconds.values()), whole, atol=1e-4)
  assert list(found.images.values()) == images.sum(0).tolist()
  np.testing.assert_allclose(found.share, whole[0] / np.sum(whole))
  assert found.metrics()["goodput/restarting_seconds"] == whole[-1]
  # Of an attempt of an older version neither its time nor the gaps are known.
  older = goodput.totals([lines[0], {"step": 3}, lines[2]])
  assert (older.attempts, older.unknown) == (3, 1)
  np.testing.assert_allclose(
    list(older.seconds.values()), [*(spent[0] + spent[2]), 0]
  )
  assert older.sentence().endswith(
    "; 1 earlier attempt(s) did not count their time"
  )


def test_the_command_reads_a_run_that_is_going_on_or_torn(tmp_path, capsys):
  seconds = {**dict.fromkeys(goodput.SPANS, 0.0), "updating": 90, "saving": 8}
  line = {"began": 100.0, "seconds": seconds}
  first = {**line, "images": {"updating": 2048, "repeating": 0}}
  second = {**line, "began": 300.0, "images": {"updating": 0, "repeating": 5}}
  text = f'{json.dumps(first)}\n{json.dumps(second)}\n{{"step": 1'
  (tmp_path / goodput.FILE).write_text(text)
  assert main.main(["goodput", f"--workdir={tmp_path}"]) == 0
  assert capsys.readouterr().out == (
    "goodput 60% of 4m 58s in 2 attempts: 3m 00s in updates (2,048 images), "
    "0s in updates made twice (5 images), 0s waiting for data, 16s saving, "
    "0s evaluating, 0s compiling, 0s starting, 1m 42s restarting; 1 earlier "
    "attempt(s) did not count their time\n"
  )
  with pytest.raises(UsageError, match=r"it has no starts\.jsonl"):
    main.main(["goodput", f"--workdir={tmp_path}/none"])
