"""TensorBoard is told which events a restart repeats."""

import re

from byol_flax.runs import metrics_log
from tests.runs.test_metrics_log import PARAMS, events_of


def test_tensorboard_shows_each_step_once_after_a_kill(tmp_path):
  """Also of a run that an older version began, without a mark of its start."""
  from clu import metric_writers

  def make_older():
    """Files count in the order of their names, which begin with the second."""
    for file in sorted((tmp_path / "tensorboard").iterdir()):
      start, second, rest = re.split(r"(\d{10})", file.name, maxsplit=1)
      file.rename(file.parent / f"{start}{int(second) - 9:010}{rest}")

  old = metric_writers.SummaryWriter(str(tmp_path / "tensorboard"))
  for step in (1, 2, 3, 4):
    old.write_scalars(step, {"loss": 1.0})
  old.close()
  for attempt, (resumed, last) in enumerate([(2, 6), (3, 5), (3, 7)], 2):
    make_older()
    killed = metrics_log.MetricsLog(
      str(tmp_path), writes=True, resume_step=resumed
    )
    killed.parameter_overview(PARAMS)
    for step in range(resumed + 1, last + 1):
      killed.scalars(step, {"loss": float(attempt)}, kind="update")
    killed.close()
  expected = [(1, 1.0), (2, 1.0), (3, 2.0), *((k, 4.0) for k in (4, 5, 6, 7))]
  assert events_of(tmp_path)["loss"] == expected

  # One that was killed before its first save begins anew.
  for loss in (5.0, 6.0):
    make_older()
    with metrics_log.MetricsLog(
      str(tmp_path), writes=True, resume_step=0
    ) as run:
      run.parameter_overview(PARAMS)
      run.scalars(1, {"loss": loss}, kind="update")
  assert events_of(tmp_path)["loss"] == [(1, 6.0)]
  assert [step for step, _ in events_of(tmp_path)["parameters"]] == [0]
