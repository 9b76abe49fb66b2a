"""Keeps a run going until it is done."""

from __future__ import annotations

import os
import pathlib
import time

from launch.controller import attempts, settings, workers
from launch.controller.calls import Console
from launch.controller.cloud import Cloud, Slice
from launch.controller.ending import Ended
from launch.controller.outcome import outcome_of
from launch.controller.settings import Settings
from launch.controller.words import quoted
from launch.controller.workers import Run


class Loop:
  """The run of the settings.

  Args:
    chosen: what was asked for.
    console: where everything is said and run.
    cloud: the slice.
  """

  def __init__(self, chosen: Settings, console: Console, cloud: Cloud) -> None:
    self._chosen = chosen
    self._pace = chosen.pace
    self._console = console
    self._cloud = cloud
    self._tarball = ""
    self._slice = Slice("", "")  # at the last look
    self._started = False

  # --- a slice that is ready --------------------------------------------------

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
        f"{self._pace.retry_seconds:g} s."
      )
      return False, failed
    if failed + 1 >= self._pace.max_tries:
      raise Ended(
        1, f"Google Cloud does not create {chosen.name}: {answer.last_error}"
      )
    say(f"Not created: {answer.last_error}")
    return False, failed + 1

  def ensure_slice(self) -> None:
    """Creates or adopts the slice and waits until it is ready.

    Raises:
      Ended: it is another slice than wanted, or cannot be had.
    """
    chosen, pause = self._chosen, self._console.pause
    before, unknown, failed = "", 0, 0
    while True:
      found = self._slice = self._cloud.read_slice()
      if found.seen != before:
        self._console.say(f"{chosen.name} is {found.seen}.")
      before = found.seen
      if found.state == "ready":
        if found.type and found.type != chosen.slice:
          raise Ended(
            2,
            f"{chosen.name} is a {found.type}, not a {chosen.slice}; give "
            f"--slice={found.type}, or another --name.",
          )
        return
      if found.state == "absent":
        comes, failed = self._try_to_create(failed)
        if not comes:
          pause(self._pace.retry_seconds)
      elif found.state == "dead":
        self._delete()
      elif found.state == "held":
        raise Ended(
          1,
          f"{chosen.name} is {found.seen}, which somebody did by hand; start "
          "or delete it first.",
        )
      elif found.state == "unknown":
        unknown += 1
        sentence = f"gcloud cannot say how {chosen.name} is: {found.error}"
        if unknown >= self._pace.max_tries:
          raise Ended(1, sentence)
        self._console.say(sentence)
        pause(self._pace.retry_seconds)
      else:
        pause(self._pace.poll_seconds)

  def _delete(self) -> None:
    if not self._cloud.delete():
      raise Ended(1, "")  # the reason was said

  # --- code, packages, start --------------------------------------------------

  def pack_code(self) -> None:
    """Makes the tarball of the commit, with its hash in a file COMMIT."""
    commit = self._chosen.commit
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = pathlib.Path(caches, "byol-launch", commit)
    self._tarball = str(cache / f"byol-{commit}.tar.gz")
    if self._console.dry_run:
      print(quoted(("mkdir", "-p", str(cache))))
      print(f"printf %s {commit} >{quoted((str(cache / 'COMMIT'),))}")
    else:
      cache.mkdir(parents=True, exist_ok=True)
      (cache / "COMMIT").write_text(commit)
    answer = self._console.run(
      (
        *("git", "-C", str(settings.REPOSITORY), "archive"),
        f"--add-file={cache / 'COMMIT'}",
        *(f"--output={self._tarball}", commit),
      )
    )
    if answer.status:
      raise Ended(1, f"git archive failed: {answer.last_error}")

  def _ship_code(self) -> bool:
    """Copies and unpacks it on every worker, where `current` points at it."""
    commit = self._chosen.commit
    folder = f"byol/code-{commit}"
    unpack = f"mkdir -p {folder} && tar -xzf byol-{commit}.tar.gz -C {folder}"
    unpack += f" && ln -sfn code-{commit} byol/current"
    self._console.say(f"Sending commit {commit} to all workers.")
    for number in range(1, self._pace.max_tries + 1):
      answer = self._cloud.copy(self._tarball)
      if not answer.status:
        answer = self._cloud.shell(unpack)
      if not answer.status:
        return True
      self._console.say(
        f"That failed (try {number} of {self._pace.max_tries}): "
        f"{answer.last_error}"
      )
      if number < self._pace.max_tries:
        self._console.pause(self._pace.retry_seconds)
    return False

  def _on_all_for_sure(self, *words: str) -> bool:
    """Does it until it works or was tried often enough.

    To reach new machines by ssh fails now and then.
    """
    for number in range(1, self._pace.max_tries + 1):
      answer = self._cloud.on_workers(*words)
      if not answer.status:
        return True
      tail = "\n".join(answer.err.splitlines()[-40:])
      self._console.say(
        f"{words[0]} failed on a worker (try {number} of "
        f"{self._pace.max_tries}):\n{tail}"
      )
      if number < self._pace.max_tries:
        self._console.pause(self._pace.retry_seconds)
    return False

  def set_up(self) -> bool:
    """Brings code and packages to all workers."""
    if not self._ship_code():
      return False
    self._console.say("Setting up all workers.")
    return self._on_all_for_sure("setup")

  def _start(self) -> bool:
    if not self.set_up():
      return False
    self._console.say("Starting the run.")
    chosen = self._chosen
    return self._on_all_for_sure(
      "start", chosen.run_id, *chosen.trainer_arguments
    )

  # --- watching ---------------------------------------------------------------

  def _read_run(self) -> tuple[Run, str]:
    """How the run is on all workers, and what gcloud said if it failed."""
    answer = self._cloud.on_workers("state")
    if self._console.dry_run:
      run = Run("exited", ("0",)) if self._started else Run("absent")
      self._started = True
      return run, ""
    return workers.read(answer), answer.last_error

  def _watch(self) -> str:
    """Watches until the run or the slice has ended; returns the event."""
    chosen, say = self._chosen, self._console.say
    watch, before = attempts.Watch(), ""
    while True:
      found = self._slice = self._cloud.read_slice()
      run = None
      if found.state == "unknown":
        # The run does not depend on us, so keep asking. Perhaps a token ran
        # out, which a login in another terminal mends.
        say(f"gcloud cannot say how {chosen.name} is: {found.error}")
      elif found.state == "waiting":
        say(f"{chosen.name} is {found.seen}.")
      elif found.state == "ready":
        run, error = self._read_run()
        if run.status != before:
          say(f"The run is {run.status}.")
        before = run.status
        if run.status == "unreachable":
          say(f"A worker did not answer: {error}")
      look = attempts.Look(found.state, run, time.monotonic())
      watch, verdict = attempts.judge(watch, look, self._pace.straggler_seconds)
      if verdict.event:
        return verdict.event
      if verdict.halt:
        say("Some workers ended, others hang; ending all.")
        self._cloud.on_workers("halt")
      self._console.pause(self._pace.poll_seconds)

  def _show_logs(self) -> None:
    lines = self._pace.log_lines
    self._console.say(f"The last {lines} lines of every worker:")
    answer = self._cloud.on_workers("logs", str(lines))
    if answer.status:
      self._console.say(f"No logs: {answer.last_error}")
    if answer.out:
      self._console.say("\n" + answer.out.rstrip("\n"))

  # --- the loop ---------------------------------------------------------------

  def _still_paid(self) -> str:
    delete = self._chosen.own_command("delete")
    return f"{self._chosen.name} is still paid for; to delete it: {delete}"

  def _finish(self) -> None:
    self._console.say(f"Done. Results: {self._chosen.workdir}")
    if self._chosen.asked.delete_when_done:
      self._delete()
      return
    self._console.say(f"{self._chosen.name} is still paid for; to delete it:")
    self._console.say(f"  {self._chosen.own_command('delete')}")

  def _adopt(self) -> bool:
    """Adopts a run that goes on already, or that is done."""
    chosen = self._chosen
    run, _ = self._read_run()
    done = run.status == "exited" and outcome_of(run.codes) == "0"
    if run.status not in ("running", "mixed") and not done:
      return False
    if run.run_id != chosen.run_id and not self._console.dry_run:
      if done:
        return False
      raise Ended(
        2,
        f"{chosen.name} runs something else; stop it first "
        f"({chosen.own_command('stop')}), or give another --name.",
      )
    if run.status == "mixed":
      # A start was interrupted, or the run is falling apart.
      self._console.say(
        "Only some workers run; ending them after a save to start all."
      )
      self._cloud.on_workers("halt")
      return False
    self._console.say(
      f"Watching the run that was started from commit {run.commit}."
    )
    return True

  def control(self) -> None:
    """Runs it to its end.

    Raises:
      Ended: it cannot go on, or shall not.
    """
    chosen, say = self._chosen, self._console.say
    restarts = 0
    self.pack_code()
    while True:
      self.ensure_slice()
      if not self._adopt() and not self._start():
        # If it was preempted meanwhile, the next round creates it anew.
        self._slice = self._cloud.read_slice()
        if self._slice.state == "ready":
          raise Ended(
            1, f"The workers could not be made to run it. {self._still_paid()}"
          )
        continue
      event = self._watch()
      if event == "0":
        self._finish()
        return
      if event == "2":
        self._show_logs()
        raise Ended(
          2,
          "The config is wrong, see the lines above. " + self._still_paid(),
        )
      if event == attempts.DELETED:
        raise Ended(
          1,
          f"{chosen.name} was deleted by somebody else, so it is not made "
          "anew; the same command resumes the run.",
        )
      if event == attempts.HELD:
        raise Ended(
          1,
          f"{chosen.name} is {self._slice.seen}, which somebody did by hand; "
          "the same command resumes the run when it is started or deleted.",
        )
      if event == attempts.STOPPED:
        raise Ended(
          75,
          "The run was stopped by `stop`; the same command resumes it. "
          + self._still_paid(),
        )
      if event == attempts.LOST:
        say(
          f"{chosen.name} is {self._slice.seen}; making it anew. The run will "
          "resume."
        )
        continue
      if event == "75":
        say("The run was preempted after a save; resuming.")
      else:
        self._show_logs()
        restarts += 1
        if restarts > self._pace.max_restarts:
          raise Ended(
            1,
            f"The run ended with {event}, after {self._pace.max_restarts} "
            f"restarts. {self._still_paid()}",
          )
        say(
          f"The run ended with {event}; restart {restarts} of "
          f"{self._pace.max_restarts}."
        )
      self._console.pause(self._pace.retry_seconds)
