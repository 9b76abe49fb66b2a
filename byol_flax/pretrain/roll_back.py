"""The way back of a run whose network has collapsed, taken once at most.

The run goes on from a healthy checkpoint. As it was it would collapse again, so
it goes on with one change, which stands in its record from then on; see
`runs.way_back`.
"""

import dataclasses
from typing import Any

import jax

from byol_flax.runs import checkpoint, loop, run_files, way_back
from byol_flax.runs.distributed import Processes
from input_pipeline.errors import RunError


@dataclasses.dataclass(frozen=True)
class Alarm:
  """That a network has collapsed.

  Attributes:
    update: at which that was found.
    healthy: the last update that was not ill.
    sentence: the reason, with the figures.
    rolled_back: what the run's record says of a way back taken before, if any.
  """

  update: int
  healthy: int
  sentence: str
  rolled_back: checkpoint.Record | None


class CollapsedError(loop.WatchError):
  """A run must not go on as it is, because its network has collapsed."""

  def __init__(self, alarm: Alarm) -> None:
    """Takes the reason."""
    super().__init__(alarm.sentence)
    self.alarm = alarm


def go_back(
  alarm: Alarm, config: Any, workdir: str, processes: Processes
) -> checkpoint.Record:
  """Sets aside the checkpoints that came after the last healthy update.

  A kill on the way loses nothing: the same command goes on from the newest
  checkpoint that is left, and if that is not a healthy one, the alarm comes
  again. Once this returns, every start knows of it, see `found`.

  Returns:
    What the record of the run shall say of it.

  Raises:
    RunError: there is no healthy checkpoint, or the run was rolled back before,
      or the config does not want it.
  """
  settings = config.watchdog
  if settings.action != "roll_back":
    raise RunError(
      f"{alarm.sentence} The run stops; what was saved is kept. Begin anew "
      "with a lower learning rate or a higher base_target_decay, or go on in "
      "spite of it with --config.watchdog.action=warn."
    )
  if alarm.rolled_back:
    raise RunError(
      f"{alarm.sentence} It had been rolled back to checkpoint "
      f"{alarm.rolled_back['step']:,} before, so the run stops; what was saved "
      "is kept. Begin anew with a lower learning rate or a higher "
      "base_target_decay."
    )
  saved = checkpoint.steps_in(workdir)
  healthy = [label for label in saved if label <= alarm.healthy]
  if not healthy:
    raise RunError(
      f"{alarm.sentence} There is no checkpoint of a healthy update to go back "
      "to, so the run stops. Begin anew with a lower learning rate or a higher "
      "base_target_decay; --config.checkpoint.every_steps saves more often."
    )
  rolled_back = {
    "step": healthy[-1],
    "from": alarm.update,
    "reason": alarm.sentence,
    "change": settings.change,
  }
  # Not sooner: from an unhealthy checkpoint the change is no way out.
  run_files.set_aside_checkpoints(workdir, healthy[-1], processes)
  if jax.process_index() == 0:
    way_back.keep(workdir, rolled_back)
  processes.wait("after going back")
  return rolled_back


def found(
  record: checkpoint.Record | None, workdir: str, processes: Processes
) -> checkpoint.Record | None:
  """What is known of a way back that the run in `workdir` has taken.

  Args:
    record: of the newest checkpoint; without one there is no way back.
    workdir: of the run.
    processes: all that take part; each calls this.

  Raises:
    RunError: they do not see the same.
  """
  known = way_back.known(record, workdir)
  if not processes.agree(known):
    raise RunError(
      f"All processes should see one {run_files.ROLLED_BACK} in {workdir}, "
      "but some see another one than the first does, or none. Give the command "
      "again, and if that does not help, see that every host has this folder."
    )
  return known


def changed(config: Any, rolled_back: checkpoint.Record | None) -> Any:
  """The config by which a run goes on that was rolled back, or `config`.

  Args:
    config: of the run, as its record keeps it.
    rolled_back: what the record says of the way back; its "change" is
      "learning_rate", which is halved, or "views", which come from another
      stream.
  """
  if not rolled_back:
    return config
  config = config.copy_and_resolve_references()
  config.update(way_back.changes(config, rolled_back))
  return config


def describe(rolled_back: checkpoint.Record) -> str:
  """Tells of the way back that a record holds."""
  how = {
    "learning_rate": f"{way_back.LESS:g} times the learning rate",
    "views": "another stream of views",
  }
  return (
    f"{rolled_back['reason']} The run was rolled back from update "
    f"{rolled_back['from']:,} to checkpoint {rolled_back['step']:,} and goes "
    f"on from it with {how[rolled_back['change']]}."
  )
