"""Watches a run for a collapse: judges every update, tells, or ends the run."""

from collections.abc import Callable, Mapping
from typing import Any

from byol_flax.pretrain import roll_back, watchdog
from byol_flax.runs.checkpoint import Record, Restored
from byol_flax.runs.distributed import Processes

NOTE = "watchdog"  # name of its notes among the metrics


class Watch:
  """Goes along with a run.

  All processes of a run get the same metrics, so all of them decide alike.

  Attributes:
    config: by which the run goes on; it has the change of a way back.
  """

  def __init__(
    self,
    config: Any,
    record: Record | None,
    workdir: str,
    processes: Processes,
    just_rolled_back: Record | None,
  ) -> None:
    """Begins to watch.

    Args:
      config: as made by configs/byol.py.
      record: of the newest checkpoint, if there is one.
      workdir: of the run.
      processes: all that take part.
      just_rolled_back: what `roll_back.go_back` returned, if it was called.
    """
    self._news = just_rolled_back
    self._rolled_back = just_rolled_back or roll_back.found(
      record, workdir, processes
    )
    self.config = roll_back.changed(config, self._rolled_back)
    self._action = config.watchdog.action
    self._settings = watchdog.settings_of(config)
    self._past = watchdog.Past()
    self._told = False

  def begin(
    self,
    restored: Restored | None,
    note: Callable[[int, str, str], None],
    say: Callable[[str], None],
  ) -> None:
    """Goes on from what a checkpoint remembers; tells of a way back.

    Args:
      restored: that checkpoint; older ones remember nothing.
      note: (update, name, sentence) -> writes it into the metrics.
      say: writes a sentence on the console.
    """
    self._note, self._say = note, say
    if restored and (remembered := restored.record.get("watchdog")):
      # Older ones do not say whether the predictor had time to learn.
      self._past = watchdog.Past(**{"ready": True, **remembered})
    if self._news:
      sentence = roll_back.describe(self._news)
      self._note(self._news["step"], NOTE, sentence)
      self._say(sentence)

  def record(self) -> Record:
    """What a checkpoint of now has to say and to remember."""
    return {"rolled_back": self._rolled_back, "watchdog": vars(self._past)}

  def look(self, update: int, values: Mapping[str, float]) -> None:
    """Judges an update; tells an alarm once, until the network is well again.

    Raises:
      roll_back.CollapsedError: there is an alarm, and the config wants more
        than to be warned.
    """
    if self._action == "off":
      return
    self._past, reason = watchdog.judge(
      self._past, update, values, self._settings
    )
    if not self._past.ill:
      self._told = False
    if not reason or self._told:
      return
    self._told = True
    healthy = self._past.healthy
    sentence = (
      f"The network is collapsing: at update {update:,} {reason}; the last "
      f"healthy update was {healthy:,}."
    )
    self._note(update, NOTE, sentence)
    if self._action != "warn":
      raise roll_back.CollapsedError(
        roll_back.Alarm(update, healthy, sentence, self._rolled_back)
      )
    self._say(sentence)
