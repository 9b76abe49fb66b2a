"""Keeps a run going until it is done: attempt after attempt."""

from __future__ import annotations

from launch.controller import attempts, before, claim, disk, guard, room
from launch.controller.attempt import Attempt
from launch.controller.attempts import History
from launch.controller.calls import TIMED_OUT, Console
from launch.controller.cloud import Cloud
from launch.controller.ending import Ended
from launch.controller.keeper import Keeper
from launch.controller.outcome import in_words
from launch.controller.settings import Settings
from launch.controller.shipping import Shipping
from launch.controller.workdir import Workdir

LOG_SECONDS = 120


class Loop:
  """The run of the settings.

  Args:
    chosen: what was asked for.
    console: where everything is said and run.
    cloud: the slice.
    keeper: makes it.
  """

  def __init__(
    self, chosen: Settings, console: Console, cloud: Cloud, keeper: Keeper
  ) -> None:
    self._chosen = chosen
    self._console = console
    self._cloud = cloud
    self._keeper = keeper
    self._shipping = Shipping(chosen, console, cloud, keeper)
    self._workdir = Workdir(chosen.workdir, console)
    self._attempt = Attempt(
      chosen, console, cloud, self._keeper, self._shipping, self._workdir
    )
    self._history = History()

  def up(self) -> None:
    """Makes the slice and installs everything.

    Raises:
      Ended: that cannot be done.
    """
    name, delete = self._chosen.name, self._chosen.own_command("delete")
    before.say_unchecked(self._chosen, self._console)
    before.check_money(self._chosen, self._console)
    guard.say_if_left_out(self._chosen, self._console)
    disk.check(self._chosen, self._console)
    self._shipping.pack()
    if self._keeper.ensure():
      self._tell_who_deleted()
    self._attempt.refuse_another()
    self._keeper.owns = True
    if not self._shipping.set_up():
      raise Ended(1, f"{name} could not be set up.")
    self._console.say(f"{name} is ready; to delete it: {delete}")

  def control(self) -> None:
    """Runs it to its end.

    Raises:
      Ended: it cannot go on, or shall not.
    """
    before.say_unchecked(self._chosen, self._console)
    before.check_money(self._chosen, self._console)
    before.check_deletion(self._chosen, self._console)
    guard.say_if_left_out(self._chosen, self._console)
    disk.check(self._chosen, self._console)
    self._shipping.pack()
    claim.refuse_another(self._chosen, self._console)
    before.check_places(self._chosen, self._console, self._shipping.note)
    room.check(self._chosen, self._console)
    while True:
      event = self._keeper.ensure() or self._one_attempt()
      if event == "0":
        self._console.say(f"Done. Results: {self._chosen.workdir}")
        return
      self._end(event)
      following = self._count(event)
      if following.remake:
        self._keeper.delete()
      elif event != attempts.GONE:
        self._console.pause(self._chosen.pace.retry_seconds)

  def _one_attempt(self) -> str:
    """How it has ended, perhaps before it began."""
    event = ""
    adopted = self._attempt.adopt()
    self._keeper.owns = True
    if adopted:
      self._note_progress()
    else:
      event = self._attempt.prepare()
      if not event:
        self._note_progress()
        event = self._attempt.start()
    return event or self._attempt.watch()

  # --- how it ends ------------------------------------------------------------

  def _end(self, event: str) -> None:
    """Raises Ended if such an event ends everything."""
    if event == "2":
      self._show_logs()
      raise Ended(
        2, "The run ended with 2, which no restart mends; see its lines above."
      )
    if event == attempts.UNREACHED:
      raise Ended(1, "The workers could not be made to run it.")
    # What went well before is not asked wrongly; it may pass, as faults do.
    if event == attempts.UNMOUNTED and not self._attempt.prepared:
      raise Ended(2, "The data disk cannot be used, see the lines above.")
    if event == attempts.SHUT and not self._attempt.prepared:
      raise Ended(2, "The run cannot use the folders above.")
    if event == attempts.TAKEN:
      # What is saved there now is the other's, and no progress of this run.
      raise Ended(2, "Two runs would destroy each other's checkpoints.")
    if event == attempts.DELETED:
      self._tell_who_deleted()
    if event == attempts.HELD:
      raise Ended(
        1,
        f"{self._chosen.name} is {self._keeper.found.seen}, which somebody did "
        "by hand; the same command resumes the run when it is started or "
        "deleted.",
      )
    if event == attempts.STOPPED:
      raise Ended(
        75, "The run was stopped by `stop`; the same command resumes it."
      )
    if event == attempts.HOURS:
      self._console.say("--max-hours are over; ending the run after a save.")
      self._attempt.halt()
      raise Ended(75, "The same command resumes the run.", in_time=True)

  def _tell_who_deleted(self) -> None:
    attempt, up = self._attempt.name, self._chosen.asked.command == "up"
    why = self._workdir.why_deleted(attempt) if attempt else ""
    resumes = f"the same command {'makes it' if up else 'resumes the run'}."
    if why == "done":
      self._console.say(
        "Done, and the slice has deleted itself. Results: "
        + self._chosen.workdir
      )
      raise Ended(0, "")
    if why:
      over = "--max-hours are over" if why == "hours" else "The run had ended"
      raise Ended(75, f"{over}, and the slice has deleted itself; {resumes}")
    name = self._chosen.name
    if guard.is_given(self._chosen) and not self._keeper.tended:
      # As when this machine slept; nothing tells which of the two it was.
      raise Ended(
        1,
        f"{name} is gone: it deleted itself, because nobody had set it up for "
        f"{guard.MINUTES} minutes, or somebody else deleted it; the same "
        "command makes it anew.",
      )
    raise Ended(
      1,
      f"{name} was deleted by somebody else, so it is not made anew; {resumes}",
    )

  # --- what follows -----------------------------------------------------------

  def _note_progress(self) -> None:
    """Looks at the newest checkpoint before an attempt."""
    self._history = attempts.with_progress(self._history, self._newest())

  def _newest(self) -> int | None:
    """The newest checkpoint; asks worker 0 if it can be read there only."""
    if self._workdir.readable or self._keeper.found.state != "ready":
      return self._workdir.newest()
    answer = self._cloud.on_workers(
      "newest", self._workdir.path, seconds=LOG_SECONDS, worker="0"
    )
    for line in answer.out.splitlines():
      if line.startswith("byol-newest "):
        return int(line.split()[2])
    return None

  def _count(self, event: str) -> attempts.Next:
    """Says what follows the attempt.

    Raises:
      Ended: it was the last.
    """
    say, most = self._console.say, self._chosen.max_restarts
    self._history, following = attempts.after(
      self._history, event, self._newest(), most
    )
    if attempts.is_outcome(event) and event not in ("75", "lost"):
      self._show_logs()
    sentence = self._sentence(event)
    again = self._history.fruitless
    if following.give_up:
      raise Ended(
        1, f"{sentence} {again} attempts in a row brought no newer checkpoint."
      )
    counted = f" (restart {again} of {most})" if again else ""
    remade = ", on a new slice" if following.remake else ""
    say(f"{sentence} Resuming{remade}{counted}.")
    return following

  def _sentence(self, event: str) -> str:
    name, seen = self._chosen.name, self._keeper.found.seen
    sentences = {
      "75": "The run was preempted after a save.",
      "lost": "A worker went down and lost its run.",
      attempts.GONE: f"{name} is {seen}; making it anew.",
      attempts.STUCK: f"{name} stays {seen}.",
      attempts.SILENT: "A worker does not answer any more, and the run stands.",
      attempts.BLIND: "The TPU did not start.",
      attempts.BUSY: "Another program holds the TPU, see the lines above.",
      attempts.UNREADY: f"{name} is {seen}.",
      attempts.UNMOUNTED: "A worker cannot read the data disk any more.",
      attempts.SHUT: "A worker cannot use its folders any more.",
    }
    return sentences.get(event, f"The run ended with {in_words(event)}.")

  def _show_logs(self) -> None:
    lines = self._chosen.pace.log_lines
    self._console.say(f"The last {lines} lines of every worker:")
    answer = self._cloud.on_workers("logs", str(lines), seconds=LOG_SECONDS)
    if answer.out:
      self._console.say("\n" + answer.out.rstrip("\n"))
    if answer.status and answer.status != TIMED_OUT:
      self._console.say(f"No logs: {answer.last_error}")
