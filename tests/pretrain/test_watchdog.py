"""The watchdog's decision on made-up runs, and what a run makes of it."""

import io
import json

import jax
import numpy as np
import pytest

from byol_flax.pretrain import attempts, roll_back, watch, watchdog
from byol_flax.runs import (
  checkpoint,
  distributed,
  metrics_log,
  run_files,
  start_clock,
  way_back,
)
from configs import byol_digits
from input_pipeline.errors import RunError, UsageError

SETTINGS = watchdog.Settings(least_spread=0.5, least_gain=0.03, patience=10)
WARM_UP = 20  # updates of the runs below


def report(update, *, std=0.15, gain=0.5, loss=1.0):
  """What an update of a made-up run reports."""
  rate = update if update <= WARM_UP else WARM_UP - update / 1000
  return {
    "train/byol_loss": loss,
    "train/projection_std": std,
    "train/predictor_gain": gain,
    "train/learning_rate": rate,
  }


def alarms(reports, settings=SETTINGS, past=None):
  """(update, last healthy update, reason) of every alarm."""
  past, found = past or watchdog.Past(), []
  for update, values in enumerate(reports, past.update + 1):
    past, reason = watchdog.judge(past, update, values, settings)
    if reason:
      found.append((update, past.healthy, reason))
  return found


def test_a_healthy_run_raises_no_alarm():
  rng = np.random.default_rng(0)
  assert not alarms(
    report(k, std=rng.uniform(0.1, 0.2), gain=rng.uniform(0.1, 1))
    for k in range(1, 300)
  )


def test_projections_that_become_equal_raise_one():
  stds = [0.15] * 40 + [0.0] * 40
  found = alarms(report(k, std=std) for k, std in enumerate(stds, 1))
  update, healthy, reason = found[0]
  # An average over ten updates halves in seven; the values themselves have
  # fallen long before, so none of those updates counts as healthy.
  assert (update, healthy) == (56, 40)
  assert "vary 19% as much as they did at most (deviation 0.028" in reason
  assert "predictor" not in reason


def test_one_bad_report_is_no_alarm():
  assert not alarms(
    report(k, std=0.0 if k == 50 else 0.15, gain=-9.0 if k == 50 else 0.5)
    for k in range(1, 100)
  )


def test_what_a_fresh_network_is_spread_does_not_matter():
  """It may begin near zero; what counts is the largest so far."""
  assert not alarms(report(k, std=min(0.15, 1e-3 * k)) for k in range(1, 300))


def test_a_predictor_without_gain_raises_one_after_the_warm_up():
  found = alarms(report(k, gain=0.01) for k in range(1, 60))
  update, healthy, reason = found[0]
  assert (update, healthy) == (WARM_UP + 10, WARM_UP)
  assert "the predictor saves 1.0% of the loss" in reason
  without = watchdog.Settings(least_spread=0.5, least_gain=0, patience=10)
  assert not alarms((report(k, gain=0.0) for k in range(1, 60)), without)


def test_the_first_update_belongs_to_the_warm_up():
  """Its learning rate is 0."""
  first = {**report(1, gain=-1.0), "train/learning_rate": 0.0}
  impatient = watchdog.Settings(least_spread=0.5, least_gain=0.03, patience=1)
  second = {**report(2, gain=-1.0), "train/learning_rate": 1.0}
  assert not alarms([first, second], impatient)
  assert alarms([first, second, second], impatient)


def test_without_a_warm_up_a_predictor_has_time_until_its_first_gain():
  gains = [-0.5] * 30 + [0.5] * 30 + [-0.5] * 30
  reports = [
    {**report(k, gain=gain), "train/learning_rate": 20.0 - k / 1000}
    for k, gain in enumerate(gains, 1)
  ]
  assert not alarms(reports[:60])
  # Unless the watch began later: then it has had that time.
  late = watchdog.Past()
  for update in range(20, 31):
    late, reason = watchdog.judge(late, update, reports[0], SETTINGS)
  assert reason
  assert alarms(reports)[0][1] == 60


def test_the_end_of_an_illness_is_forgotten():
  gains = [0.5] * 40 + [-0.5] * 8 + [0.5] * 100
  assert not alarms(report(k, gain=gain) for k, gain in enumerate(gains, 1))


def test_a_restart_changes_nothing():
  """What a checkpoint remembers goes through JSON."""
  reports = [report(k, std=0.15 if k < 40 else 0.0) for k in range(1, 70)]
  past = watchdog.Past()
  for update, values in enumerate(reports[:45], 1):
    past, _ = watchdog.judge(past, update, values, SETTINGS)
  kept = json.loads(json.dumps(vars(past)))
  again = alarms(reports[45:], past=watchdog.Past(**kept))
  assert again == alarms(reports)


def test_after_updates_that_nobody_looked_at_the_averages_begin_anew():
  """One bad update after a gap is none, and a stale average heals nothing."""
  healthy = [report(k) for k in range(1, 41)]
  past = watchdog.Past()
  for update, values in enumerate(healthy, 1):
    past, _ = watchdog.judge(past, update, values, SETTINGS)
  past, reason = watchdog.judge(past, 61, report(61, std=0.0), SETTINGS)
  assert not reason
  assert (past.healthy, past.spread, past.largest) == (40, 0.0, 0.15)
  found = alarms((report(k, std=0.0) for k in range(62, 75)), past=past)
  assert found[0][:2] == (70, 40)  # the last that somebody looked at


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("model.predictor.layers", 0),
    ("objective.negatives_weight", 0.3),
    ("objective.normalization", "none"),
    ("base_target_decay", 0.9),
  ],
)
def test_where_a_predictor_need_not_gain_only_the_spread_is_judged(key, value):
  config = byol_digits.get_config()
  assert watchdog.settings_of(config).least_gain > 0
  config.update_from_flattened_dict({key: value})
  found = watchdog.settings_of(config)
  assert (found.least_spread, found.least_gain) == (0.4, 0)


def test_the_gain_over_the_online_network_is_judged_at_any_decay():
  config = byol_digits.get_config()
  config.update(base_target_decay=0.9)
  config.objective.target = "online_stopped"
  assert watchdog.settings_of(config).least_gain == config.watchdog.least_gain


def test_the_change_is_one_of_two():
  config = byol_digits.get_config()
  assert roll_back.changed(config, None) is config
  slower = roll_back.changed(config, {"change": "learning_rate"})
  assert slower.base_learning_rate == config.base_learning_rate / 2
  assert slower.seed == config.seed
  config.seed = 2**32 - 1
  other = roll_back.changed(config, {"change": "views"})
  assert (other.seed, other.base_learning_rate) == (1, 12.0)
  assert config.seed == 2**32 - 1


@pytest.mark.parametrize(
  ("settings", "saved", "rolled_back", "sentence"),
  [
    ({"action": "stop"}, (3, 6), None, "go on in spite of it with --config"),
    ({"action": "roll_back"}, (9,), None, "no checkpoint of a healthy update"),
    (
      {"action": "roll_back"},
      (3, 6),
      {"step": 3},
      "had been rolled back to checkpoint 3 before",
    ),
  ],
)
def test_where_there_is_no_way_back_the_run_stops(
  tmp_path, settings, saved, rolled_back, sentence
):
  for label in saved:
    (tmp_path / "checkpoints" / str(label)).mkdir(parents=True)
  config = byol_digits.get_config()
  config.watchdog.update(settings)
  alarm = roll_back.Alarm(13, 8, "It is ill.", rolled_back)
  with pytest.raises(RunError, match=rf"It is ill\. .*{sentence}"):
    roll_back.go_back(alarm, config, str(tmp_path), distributed.Processes())
  assert not (tmp_path / "checkpoints-rolled-back").exists()


def at(step):
  """The record of a checkpoint."""
  return {"data_position": {"next_update": step}, "rolled_back": None}


def test_a_way_back_is_known_before_the_next_save(tmp_path):
  for label in (3, 6, 9):
    (tmp_path / "checkpoints" / str(label)).mkdir(parents=True)
  config = byol_digits.get_config()
  config.watchdog.action = "roll_back"
  alarm = roll_back.Alarm(13, 8, "It is ill.", None)
  assert way_back.known(at(9), str(tmp_path)) is None
  back = roll_back.go_back(
    alarm, config, str(tmp_path), distributed.Processes()
  )
  found = watch.Watch(  # of a later start
    config, at(6), str(tmp_path), distributed.Processes(), None
  )
  assert found.config.base_learning_rate == config.base_learning_rate / 2
  assert found.record()["rolled_back"] == back
  assert (back["step"], back["from"]) == (6, 13)
  # What a checkpoint says itself comes first, and a new run knows of nothing.
  said = {**at(6), "rolled_back": {**back, "step": 3}}
  assert way_back.known(said, str(tmp_path))["step"] == 3
  assert way_back.known(None, str(tmp_path)) is None
  # Nor does a checkpoint of before, which went on as it was.
  assert way_back.known(at(3), str(tmp_path)) is None
  (tmp_path / run_files.ROLLED_BACK).write_text("{")
  with pytest.raises(UsageError, match=r"rolled-back\.json should be a JSON"):
    way_back.known(at(6), str(tmp_path))
  # A run that begins anew because there is no checkpoint has not gone back.
  run_files.set_aside_unsaved(str(tmp_path), distributed.Processes())
  assert way_back.known(at(6), str(tmp_path)) is None


def test_each_illness_is_told_once(tmp_path):
  config = byol_digits.get_config()
  told = []
  watching = watch.Watch(
    config, None, str(tmp_path), distributed.Processes(), None
  )
  watching.begin(None, lambda step, *_: told.append(step), lambda _: None)
  ill = {*range(50, 80), *range(150, 180)}
  for update in range(1, 200):
    watching.look(update, report(update, std=0.0 if update in ill else 0.15))
  assert len(told) == 2
  assert 50 < told[0] < 80
  assert 150 < told[1] < 180


class _Other(distributed.Processes):
  """A process whose first one sees another folder."""

  def of_first(self, number):
    return number + 1


def test_processes_that_do_not_see_the_same_way_back_are_told(tmp_path):
  with pytest.raises(RunError, match=r"one rolled-back\.json in .* or none\. "):
    roll_back.found(at(6), str(tmp_path), _Other())


def test_the_config_by_which_a_run_went_on(tmp_path):
  config = byol_digits.get_config().to_dict()
  assert way_back.config_of(config, None) is config
  way_back.keep(str(tmp_path), {"change": "learning_rate", "step": 6})
  known = way_back.known(at(6), str(tmp_path))
  slower = way_back.config_of(config, known)
  assert slower == {**config, "base_learning_rate": 6.0}


def small(**watchdog_settings):
  """24 updates, of which 7 warm up; each after the eighth is ill."""
  config = byol_digits.get_config()
  config.epochs, config.warmup_epochs = 24.5 * 64 / 1437, 7.5 * 64 / 1437
  config.model.encoder.update(architecture="basic:1:4:8", width=1)
  config.model.projector.update(hidden_size=16, output_size=8)
  config.model.predictor.update(hidden_size=16, output_size=8)
  config.augment.size = 8
  config.loader.num_workers = 0
  config.checkpoint.every_steps = 3
  config.evaluation.every_steps = 0
  config.report.update(every_steps=4, view_hashes=True)
  config.watchdog.update(least_gain=1.0, patience=5, **watchdog_settings)
  return config


def run(config, workdir):
  """Trains; returns what the console says."""
  stream = io.StringIO()
  try:
    attempts.run(
      config,
      str(workdir),
      restart=False,
      begins_with=None,
      open_evaluation=lambda *_: (lambda state: {}, "none"),
      processes=distributed.Processes(),
      start_clock=start_clock.StartClock(0),
      stream=stream,
    )
  finally:
    print(stream.getvalue())
  return stream.getvalue()


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def notes(workdir):
  return [
    (line["step"], line[watch.NOTE])
    for line in lines(workdir / "metrics.jsonl")
    if metrics_log.kind_of(line) == "note"
  ]


def record(workdir, step):
  reader = checkpoint.Checkpoints.reader(str(workdir))
  found = reader.record(step)
  reader.close()
  return found


@pytest.fixture
def states(monkeypatch):
  """What is saved and what is restored, in order: (how, update, arrays)."""
  seen = []

  def keep(how, state):
    seen.append((how, int(state.step), jax.device_get(state)))

  save, restore = checkpoint.Checkpoints.save, checkpoint.Checkpoints.restore

  def saving(self, step, state, record):
    keep("saved", state)
    save(self, step, state, record)
    self.wait()  # so that the next one is not put off

  def restoring(self, abstract_state, step=None):
    restored = restore(self, abstract_state, step)
    if restored:
      keep("restored", restored.state)
    return restored

  monkeypatch.setattr(checkpoint.Checkpoints, "save", saving)
  monkeypatch.setattr(checkpoint.Checkpoints, "restore", restoring)
  return seen


@pytest.mark.slow
def test_a_run_goes_back_once_with_another_stream_of_views(tmp_path, states):
  config = small(action="roll_back", change="views")
  with pytest.raises(RunError, match="It had been rolled back to checkpoint 6"):
    run(config, tmp_path)
  # Healthy were eight updates, with the first of the highest rate.
  order = [(how, step) for how, step, _ in states]
  at = order.index(("restored", 6))
  assert order[:at] == [("saved", 3), ("saved", 6), ("saved", 9), ("saved", 12)]
  before = states[order.index(("saved", 6))][2]
  for saved, restored in zip(
    jax.tree.leaves(before), jax.tree.leaves(states[at][2]), strict=True
  ):
    assert saved.tobytes() == restored.tobytes()
  aside = {x.name.split("-")[0] for x in tmp_path.glob("*-rolled-back/*")}
  assert aside == {"9", "12"}
  assert (tmp_path / "checkpoints" / "12").is_dir()  # of the second attempt

  told = notes(tmp_path)
  assert [step for step, _ in told] == [6, 13]
  assert "rolled back from update 13 to checkpoint 6 and goes on" in told[0][1]
  kept = record(tmp_path, 12)
  assert kept["rolled_back"]["step"] == 6
  assert kept["rolled_back"]["from"] == 13
  assert kept["rolled_back"]["change"] == "views"
  assert kept["rolled_back"]["reason"] in told[0][1]
  assert kept["config"]["seed"] == 0
  assert kept["data_position"]["seed"] == 2

  # Resumed, it goes on with the changed views to its end, and only warns.
  config.watchdog.action = "warn"
  console = run(config, tmp_path)
  assert console.count("The network is collapsing: at update 13") == 1
  assert [step for step, _ in notes(tmp_path)] == [6, 13]
  last = record(tmp_path, 24)
  assert last["rolled_back"] == kept["rolled_back"]
  digests = {}
  for line in lines(tmp_path / "view_hashes-0.jsonl"):
    digests.setdefault(line["step"], []).append(line["digest"])
  first, second, resumed = digests[13]
  assert first != second == resumed
