"""Makes the slice, waits until it is ready, deletes it."""

from __future__ import annotations

import time

from launch.controller import attempts, guard
from launch.controller.calls import Console
from launch.controller.cloud import Cloud
from launch.controller.ending import Ended, Interrupted
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
    owns: whether this command has asked for the slice, or has adopted it, and
      so answers for what it costs.
    tended: whether a set-up was begun on it, from which on worker 0 guards it.
    until: seconds of the epoch at which --max-hours are over; None before the
      slice was ready for the first time, or without a limit.
  """

  def __init__(self, chosen: Settings, console: Console, cloud: Cloud) -> None:
    self._chosen = chosen
    self._console = console
    self._cloud = cloud
    self.found = Slice("", "")
    self.owns = False
    self.tended = False
    self._made = False  # by this command, so it has its guard
    self._refused = False
    # Since it was made: whether it is there until somebody deletes it.
    self._existed = False
    self.until: float | None = None

  def look(self) -> Slice:
    """Looks at the slice once."""
    self.found = self._cloud.read_slice()
    return self.found

  @property
  def overtime(self) -> bool:
    """Whether --max-hours are over."""
    return self.until is not None and time.time() >= self.until

  @property
  def left(self) -> str:
    """Whole seconds before --max-hours are over, as workers are told; or -."""
    if self.until is None:
      return "-"
    return str(max(0, int(self.until - time.time())))

  def within(self, seconds: float) -> float:
    """Returns `seconds`, or those that --max-hours leave if they are fewer.

    Raises:
      Ended: the hours are over.
    """
    if self.overtime:
      raise Ended(75, "--max-hours are over; the workdir stays.", in_time=True)
    if self.until is None:
      return seconds
    return min(seconds, self.until - time.time())

  def ensure(self) -> str:
    """Creates or adopts the slice and waits until it is ready.

    Returns:
      "", or `attempts.DELETED` if it was there before, and somebody deleted it.

    Raises:
      Ended: it is another slice than wanted, or cannot be had.
    """
    chosen, pace = self._chosen, self._chosen.pace
    before, unknown, failed, since = "", 0, 0, time.monotonic()
    while True:
      self.within(0)
      found = self.look()
      if found.seen != before:
        self._console.say(f"{chosen.name} is {found.seen}.")
        since = time.monotonic()
      before = found.seen
      # Google keeps even a request that has failed.
      self._existed = self._existed or found.state == "queued"
      if found.state == "ready":
        self._adopt(found)
        return ""
      if found.state == "absent":
        if self._existed:
          return attempts.DELETED
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
    self._existed = True
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
    # Also a creation that fails, or is interrupted, may leave something.
    owned, self.owns, self._made = self.owns, True, True
    self.found = Slice("unknown", "UNKNOWN")
    answer = self._cloud.create()
    if not answer.status:
      # gcloud waits for a slice; a request may show a moment later.
      self._existed = not chosen.asked.queued
      return True, failed
    if answer.error_matches("ALREADY_EXISTS|already exists"):
      self.owns = owned  # the next look tells what there is
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
      self._refused = True
      raise Ended(1, "")  # the reason was said
    self.found = Slice("absent", "ABSENT")
    self._existed = self.tended = False

  def settle(self, end: Ended) -> None:
    """Ends the payment if --delete says so, or says that it goes on.

    Args:
      end: how the command has ended.

    Raises:
      Ended: the slice could not be deleted.
    """
    asked, name = self._chosen.asked, self._chosen.name
    if asked.command not in ("run", "up") or self._refused:
      return
    if not self.owns:
      if end.interrupted:
        there = self.found.state not in ("", "absent")
        left = f"{name} stays as it was." if there else "Nothing was created."
        self._console.say(left)
      return
    if self.found.state == "unknown":
      self.look()
    # What `up` has made is wanted; a slice that is dead nobody can use.
    made = asked.command == "up" and not end.status
    if self.found.state == "absent" or made:
      return
    in_time = end.in_time and asked.delete == "done"
    if not (in_time or asked.delete == "always" or self.found.state == "dead"):
      self._say_that_it_stays(end)
      return
    try:
      self.delete()
    except Interrupted:
      self._say_that_it_stays(end)
      raise

  def _say_that_it_stays(self, end: Ended) -> None:
    chosen, say = self._chosen, self._console.say
    delete = chosen.own_command("delete")
    if not end.interrupted:
      say(f"{chosen.name} is still paid for; to delete it: {delete}")
      return
    say("What was started goes on, and the slice is paid for.")
    if self._made and not self.tended and guard.is_given(chosen):
      say(
        f"Without a set-up it deletes itself {guard.MINUTES} minutes after its "
        "boot."
      )
    if chosen.asked.command == "run":
      say(f"  to watch it again: {chosen.own_command('run')}")
    say(f"  to stop the run:   {chosen.own_command('stop')}")
    say(f"  to stop paying:    {delete}")
