"""Makes the slice, waits until it is ready, deletes it."""

from __future__ import annotations

import time

from launch.controller.calls import Console
from launch.controller.cloud import Cloud
from launch.controller.ending import Ended
from launch.controller.settings import Settings
from launch.controller.states import Slice


class Keeper:
  """The slice of the settings.

  Args:
    chosen: what was asked for.
    console: where everything is said.
    cloud: the slice.

  Attributes:
    found: the slice at the last look.
    until: seconds of the epoch at which --max-hours are over; None before the
      slice was ready for the first time, or without a limit.
  """

  def __init__(self, chosen: Settings, console: Console, cloud: Cloud) -> None:
    self._chosen = chosen
    self._console = console
    self._cloud = cloud
    self.found = Slice("", "")
    self.until: float | None = None

  def look(self) -> Slice:
    """Looks at the slice once."""
    self.found = self._cloud.read_slice()
    return self.found

  @property
  def overtime(self) -> bool:
    """Whether --max-hours are over."""
    return self.until is not None and time.time() >= self.until

  def ensure(self) -> None:
    """Creates or adopts the slice and waits until it is ready.

    Raises:
      Ended: it is another slice than wanted, or cannot be had.
    """
    chosen, pace = self._chosen, self._chosen.pace
    before, unknown, failed, since = "", 0, 0, time.monotonic()
    while True:
      if self.overtime:
        self._console.say("--max-hours are over; the workdir stays.")
        raise Ended(75, self.settle(in_time=True))
      found = self.look()
      if found.seen != before:
        self._console.say(f"{chosen.name} is {found.seen}.")
        since = time.monotonic()
      before = found.seen
      if found.state == "ready":
        self._adopt(found)
        return
      if found.state == "absent":
        comes, failed = self._try_to_create(failed)
        if not comes:
          self._console.pause(pace.retry_seconds)
      elif found.state == "dead":
        self.delete()
        # Not every failure passes by itself, as a preemption does.
        failed += found.seen == "FAILED"
        if failed >= pace.max_tries:
          raise Ended(
            1,
            f"Google's queue has failed {failed} times to make {chosen.name}: "
            "another --zone or --slice may go.",
          )
      elif found.state == "held":
        raise Ended(
          1,
          f"{chosen.name} is {found.seen}, which somebody did by hand; start "
          "or delete it first.",
        )
      elif found.state == "unknown":
        unknown += 1
        sentence = f"gcloud cannot say how {chosen.name} is: {found.error}"
        if unknown >= pace.max_tries:
          raise Ended(1, sentence)
        self._console.say(sentence)
        self._console.pause(pace.retry_seconds)
      elif (
        found.state == "waiting"
        and time.monotonic() - since >= pace.stuck_seconds
      ):
        self._console.say(f"{chosen.name} stays {found.seen}; making it anew.")
        self.delete()
      else:
        self._console.pause(pace.poll_seconds)

  def _adopt(self, found: Slice) -> None:
    chosen = self._chosen
    if found.type and found.type != chosen.slice:
      raise Ended(
        2,
        f"{chosen.name} is a {found.type}, not a {chosen.slice}; give "
        f"--slice={found.type}, or another --name.",
      )
    hours = chosen.asked.number("max-hours")
    if hours is not None and self.until is None:
      self.until = time.time() + 3600 * hours

  def _try_to_create(self, failed: int) -> tuple[bool, int]:
    """Tries once. Returns whether it may come up, and the count of failures.

    Raises:
      Ended: waiting cannot help.
    """
    chosen, say = self._chosen, self._console.say
    say(
      f"Creating {chosen.name}: {chosen.slice} in {chosen.zone}, {chosen.kind}."
    )
    answer = self._cloud.create()
    if not answer.status or answer.error_matches(
      "ALREADY_EXISTS|already exists"
    ):
      return True, failed
    if answer.error_matches("quota limit|quota.*exceeded|insufficient quota"):
      raise Ended(
        1,
        f"Google Cloud refuses {chosen.slice} in {chosen.zone} for want of "
        f"quota: {answer.last_error}",
      )
    if answer.error_matches("no more capacity|RESOURCE_EXHAUSTED|UNAVAILABLE"):
      say(
        f"No capacity for {chosen.slice} in {chosen.zone}; next try in "
        f"{chosen.pace.retry_seconds:g} s."
      )
      return False, failed
    if failed + 1 >= chosen.pace.max_tries:
      raise Ended(
        1, f"Google Cloud does not create {chosen.name}: {answer.last_error}"
      )
    say(f"Not created: {answer.last_error}")
    return False, failed + 1

  def delete(self) -> None:
    """Deletes the slice.

    Raises:
      Ended: it stayed.
    """
    if not self._cloud.delete():
      raise Ended(1, "")  # the reason was said

  def settle(self, in_time: bool) -> str:
    """Deletes the slice if --delete says so, or if it is dead.

    Args:
      in_time: whether it ends as it was meant to.

    Returns:
      what to say about the payment if it stays, "" if it is deleted.

    Raises:
      Ended: it could not be deleted.
    """
    delete = self._chosen.asked.delete
    if self.found.state == "dead":
      delete = "always"  # nobody can use it
    if delete == "always" or (delete == "done" and in_time):
      self.delete()
      return ""
    command = self._chosen.own_command("delete")
    return f"{self._chosen.name} is still paid for; to delete it: {command}"
