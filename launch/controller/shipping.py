"""Brings the code to all workers, and sets them up."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator

from launch.controller import settings
from launch.controller.calls import Answer, Console
from launch.controller.cloud import Cloud
from launch.controller.ending import Ended
from launch.controller.keeper import Keeper
from launch.controller.settings import Settings
from launch.controller.words import quoted

_PACK_SECONDS = 120
_COPY_SECONDS = 900
_UNPACK_SECONDS = 300
_SET_UP_SECONDS = 1800


def _succeeded(answer: Answer) -> bool:
  return not answer.status


class Shipping:
  """The commit of the settings.

  Args:
    chosen: what was asked for.
    console: where everything is said and run.
    cloud: the slice.
    keeper: knows when its hours are over.

  Attributes:
    note: a local file that names the commit.
  """

  def __init__(
    self, chosen: Settings, console: Console, cloud: Cloud, keeper: Keeper
  ) -> None:
    self._keeper = keeper
    self._chosen = chosen
    self._console = console
    self._cloud = cloud
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = pathlib.Path(caches, "byol-launch", chosen.commit)
    self.note = cache / "COMMIT"
    self._tarball = str(cache / f"byol-{chosen.commit}.tar.gz")

  def pack(self) -> None:
    """Makes the tarball of the commit, with its hash in a file COMMIT."""
    commit = self._chosen.commit
    if self._console.dry_run:
      print(quoted(("mkdir", "-p", str(self.note.parent))))
      print(f"printf %s {commit} >{quoted((str(self.note),))}")
    else:
      self.note.parent.mkdir(parents=True, exist_ok=True)
      self.note.write_text(commit)
    words = ("git", "-C", str(settings.REPOSITORY), "archive")
    flags = (f"--add-file={self.note}", f"--output={self._tarball}", commit)
    answer = self._console.run((*words, *flags), _PACK_SECONDS)
    if answer.status:
      raise Ended(1, f"git archive failed: {answer.last_error}")

  def set_up(self) -> bool:
    """Brings code and packages to all workers; False if that fails."""
    if not self._ship():
      return False
    self._console.say("Setting up all workers.")
    asked = self._chosen.asked
    # What `up` makes waits for a run, so that only --max-hours end it.
    waits = asked.command == "up" and asked.delete != "never"
    delete = "hours" if waits else asked.delete
    # The workdir may have the packages as an archive, see packages.sh.
    words = ("setup", self._chosen.workdir or "-", delete)
    left, resource = self._keeper.left, self._cloud.resource
    answer = self.for_sure(*words, left, resource, seconds=_SET_UP_SECONDS)
    if answer is None:
      return False
    self._keeper.tended = True
    return True

  def _ship(self) -> bool:
    """Copies and unpacks it on every worker, where `current` points at it."""
    commit, pace = self._chosen.commit, self._chosen.pace
    folder = f"byol/code-{commit}"
    unpack = f"mkdir -p {folder} && tar -xzf byol-{commit}.tar.gz -C {folder}"
    unpack += f" && ln -sfn code-{commit} byol/current"
    self._console.say(f"Sending commit {commit} to all workers.")
    for number in self._tries():
      answer = self._cloud.copy(
        self._tarball, self._keeper.within(_COPY_SECONDS)
      )
      if not answer.status:
        answer = self._cloud.shell(unpack, self._keeper.within(_UNPACK_SECONDS))
      if not answer.status:
        return True
      self._console.say(
        f"That failed (try {number} of {pace.max_tries}): {answer.last_error}"
      )
    return False

  def _tries(self) -> Iterator[int]:
    """Counts the tries from 1, with pauses between them.

    Raises:
      Ended: --max-hours were over before a try, or after the last.
    """
    pace = self._chosen.pace
    for number in range(1, pace.max_tries + 1):
      self._keeper.within(0)
      yield number
      if number < pace.max_tries:
        self._console.pause(pace.retry_seconds)
    self._keeper.within(0)

  def for_sure(
    self,
    *words: str,
    seconds: float,
    enough: Callable[[Answer], bool] = _succeeded,
  ) -> Answer | None:
    """Does it on all workers until it works or was tried often enough.

    To reach new machines by ssh fails now and then. Returns None if it did not
    work at last.

    Args:
      words: of worker.sh.
      seconds: the most that it may take.
      enough: whether an answer is one.

    Raises:
      Ended: --max-hours are over.
    """
    pace = self._chosen.pace
    for number in self._tries():
      most = self._keeper.within(seconds)
      answer = self._cloud.on_workers(*words, seconds=most)
      if self._console.dry_run or enough(answer):
        return answer
      self._console.say(
        f"{words[0]} failed on a worker (try {number} of {pace.max_tries}):\n"
        + _tail(answer)
      )
    return None


def _tail(answer: Answer) -> str:
  return "\n".join(answer.err.splitlines()[-40:])
