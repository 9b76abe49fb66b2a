"""One attempt: starts the run on all workers, or adopts it, and watches it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from launch.controller import attempts, disk, permission, workers
from launch.controller.arguments import DISK_FOLDER
from launch.controller.attempts import Limits, Look, Watch
from launch.controller.calls import Answer, Console
from launch.controller.cloud import Cloud
from launch.controller.ending import Ended
from launch.controller.keeper import Keeper
from launch.controller.outcome import outcome_of
from launch.controller.settings import Settings
from launch.controller.shipping import Shipping
from launch.controller.workdir import Workdir
from launch.controller.workers import Run

_START_SECONDS = 300
_DISK_SECONDS = 180
# JAX gets 300 and a bucket that is slow twice as much, see check in check.sh.
_CHECK_SECONDS = 700
END_SECONDS = 420  # a save may take 290, see start in worker.sh


class Attempt:
  """The attempt of now.

  Args:
    chosen: what was asked for.
    console: where everything is said and run.
    cloud: the slice.
    keeper: makes it.
    shipping: brings the code.
    workdir: of the run.

  Attributes:
    name: of the folder of its logs; "" before the first.
    prepared: whether the workers were ready to start before, so that what they
      cannot do now they could do then.
  """

  def __init__(
    self,
    chosen: Settings,
    console: Console,
    cloud: Cloud,
    keeper: Keeper,
    shipping: Shipping,
    workdir: Workdir,
  ) -> None:
    self._chosen = chosen
    self._console = console
    self._cloud = cloud
    self._keeper = keeper
    self._shipping = shipping
    self._workdir = workdir
    self._looks = 0
    self.name = ""
    self.prepared = False
    self._stopped: bool | None = None  # when it was last looked at

  def refuse_another(self) -> None:
    """Raises Ended if something runs, which a set-up would disturb."""
    run, _ = self._read_run()
    if run.status in ("running", "mixed"):
      raise Ended(2, self._busy("already runs something"))

  def _busy(self, how: str) -> str:
    name, stop = self._chosen.name, self._chosen.own_command("stop")
    return f"{name} {how}; stop it first ({stop}), or give another --name."

  def adopt(self) -> bool:
    """Adopts a run that goes on already, that is done, or was stopped since.

    Raises:
      Ended: the slice runs something else.
    """
    chosen = self._chosen
    run, _ = self._read_run()
    self._keeper.tended = self._keeper.tended or run.run_id != ""
    if self._was_stopped(run):
      return True
    done = run.status == "exited" and outcome_of(run.codes) == "0"
    if run.status not in ("running", "mixed") and not done:
      return False
    if run.run_id != chosen.run_id and not self._console.dry_run:
      if done:
        return False
      self._keeper.owns = False  # what others run there is theirs to end
      raise Ended(2, self._busy("runs something else"))
    if run.status == "mixed":
      # A start was interrupted, or the run is falling apart.
      self._console.say(
        "Only some workers run; ending them after a save to start all."
      )
      self.halt()
      return False
    self.name = run.attempt
    if run.seconds_left is not None:
      self._keeper.until = time.time() + run.seconds_left
    self._console.say(
      f"Watching the run that was started from commit {run.commit}."
    )
    if not done:
      self._agree_on_the_end()
    return True

  def _agree_on_the_end(self) -> None:
    """Tells the workers when this command wants the slice deleted."""
    seconds = self._chosen.pace.look_seconds
    words = ("retend", self._chosen.asked.delete, self._keeper.left)
    answer = self._cloud.on_workers(*words, seconds=seconds)
    if answer.status:
      self._console.say(
        "Not all workers were told of --delete and --max-hours, so they keep "
        f"to those of the start: {answer.last_error}"
      )

  def _was_stopped(self, run: Run) -> bool:
    """Whether `stop` came since this program has looked for the first time.

    What was stopped before is resumed.
    """
    if run.status == "unreachable":
      return False
    before, self._stopped = self._stopped, run.status == "stopped"
    return self._stopped and before is False

  def prepare(self) -> str:
    """Sets up all workers; returns "", or how the attempt has ended already."""
    if not self._shipping.set_up():
      return self._unbegun()
    event = self._mount() if disk.name_of(self._chosen) else ""
    event = event or self._check()
    if event:
      return event
    self.prepared = True
    # Setting up takes minutes, in which somebody may have thought better of it.
    run, _ = self._read_run()
    return attempts.STOPPED if self._was_stopped(run) else ""

  def _unbegun(self) -> str:
    return attempts.unbegun(self._keeper.look().state)

  def _check(self) -> str:
    """Looks whether all workers can run it; returns as `prepare`."""
    self._console.say("Looking whether JAX sees the chips of every worker.")
    chosen = self._chosen
    data = chosen.asked.values.get("data", "-")
    words = ("check", chosen.project, chosen.workdir, data)
    answer = self._shipping.for_sure(
      *words, seconds=_CHECK_SECONDS, enough=self._all_are_checked
    )
    return self._unbegun() if answer is None else self._report_check(answer)

  def _all_are_checked(self, answer: Answer) -> bool:
    return not workers.read_check(answer, self._cloud.workers).missing

  def start(self) -> str:
    """Starts the run; returns as `prepare`."""
    chosen = self._chosen
    self._console.say("Starting the run.")
    self._stopped = False
    self.name = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    left = self._keeper.left
    if self._shipping.for_sure(
      *("start", chosen.run_id, self.name, chosen.asked.delete, left),
      *(self._cloud.resource, *chosen.trainer_arguments),
      seconds=_START_SECONDS,
    ):
      return ""
    return self._unbegun()

  def _mount(self) -> str:
    """Mounts the data disk on all workers; returns as `prepare`.

    It is done before every attempt, because a machine that was started again
    has lost it.
    """
    self._console.say("Mounting the data disk.")
    data = self._chosen.asked.values.get("data", DISK_FOLDER)
    answer = self._shipping.for_sure("disk", data, seconds=_DISK_SECONDS)
    if answer is None:
      return self._unbegun()
    failures = disk.failures(answer)
    for sentence in failures:
      self._console.say(f"A worker cannot read the disk. {sentence}")
    return attempts.UNMOUNTED if failures else ""

  def _report_check(self, answer: Answer) -> str:
    """Says what is wrong on which worker; returns as `prepare`."""
    if self._console.dry_run:
      return ""
    chosen, say = self._chosen, self._console.say
    check = workers.read_check(answer, self._cloud.workers)
    for sentence in (*check.taken, *check.shut):
      say(f"{sentence}.")
    if check.taken:
      return attempts.TAKEN
    if check.shut:
      self._say_roles(check.shut)
      return attempts.SHUT
    for sentence in check.busy:
      say(sentence)
    for sentence in check.blind:
      say(f"JAX does not see the chips of a worker. {sentence}")
    # The others wait in vain for a worker whose chips are taken.
    if check.busy:
      return attempts.BUSY
    if check.blind or chosen.asked.delete == "never":
      return attempts.BLIND if check.blind else ""
    if check.may_delete != "yes":
      account = permission.account_of(chosen, self._console)
      sure = "may not" if check.may_delete == "no" else "perhaps may not"
      say(
        f"The slice {sure} delete itself, so only this program ends the "
        f"payment. To allow it:\n{permission.grant(chosen.project, account)}"
      )
    return ""

  def _say_roles(self, shut: Sequence[str]) -> None:
    """Names the roles without which a worker cannot use its buckets."""
    chosen = self._chosen
    data = chosen.asked.values.get("data", "")
    refused = [sentence for sentence in shut if "no answer" not in sentence]
    needed = []
    for begin, path, role in (
      ("cannot write to the workdir", chosen.workdir, permission.WRITER),
      ("cannot read the data in", data, permission.READER),
    ):
      told = any(f"{begin} {path}: " in sentence for sentence in refused)
      if told and path.startswith("gs://"):
        needed.append((path, role))
    if needed:
      account = permission.account_of(chosen, self._console)
      grants = [permission.grant_bucket(x, account, y) for x, y in needed]
      self._console.say(
        "The usual reason is that the account of the slice, which is another "
        "than yours, lacks a role. To give it:\n" + "\n".join(grants)
      )

  def _read_run(self) -> tuple[Run, str]:
    """How the run is on all workers, and what gcloud said if it failed."""
    seconds = self._chosen.pace.look_seconds
    answer = self._cloud.on_workers("state", seconds=seconds)
    if self._console.dry_run:
      self._looks += 1
      return Run("absent" if self._looks == 1 else "exited", ("0",)), ""
    return workers.read(answer, self._cloud.workers), answer.last_error

  def watch(self) -> str:
    """Watches until the run or the slice has ended; returns the event."""
    pace = self._chosen.pace
    limits = Limits(
      pace.straggler_seconds,
      pace.silent_seconds,
      pace.stuck_seconds,
      2 * (pace.poll_seconds + pace.look_seconds),
    )
    watch, said = Watch(), ""
    while True:
      look, words = self._look()
      if words and words != said:
        self._console.say(words)
      # What goes wrong is said at every look, what goes well once.
      said = words if look.run and not look.run.silent else ""
      watch, verdict = attempts.judge(watch, look, limits)
      if verdict.event:
        return verdict.event
      if verdict.halt:
        self._console.say("Some workers ended, others hang; ending all.")
        self.halt()
      self._console.pause(pace.poll_seconds)

  def _look(self) -> tuple[Look, str]:
    """What is found now, and what to say about it."""
    found, name = self._keeper.look(), self._chosen.name
    run = life = None
    words = ""
    if found.state == "unknown":
      # The run does not depend on us, so keep asking. Perhaps a token ran out,
      # which a login in another terminal mends.
      words = f"gcloud cannot say how {name} is: {found.error}"
    elif found.state in ("waiting", "queued"):
      words = f"{name} is {found.seen}."
    elif found.state == "ready":
      run, error = self._read_run()
      words = f"The run is {run.status}."
      if run.silent:
        numbers = run.silent_numbers
        life = self._workdir.sign_of_life(self.name, numbers)
        which = ", ".join(map(str, numbers[:8]))
        words = f"Workers that do not answer: {which}. {error}"
    now, overtime = time.monotonic(), self._keeper.overtime
    return Look(found.state, run, life, now, overtime), words

  def halt(self) -> None:
    """Ends the run on all workers after a save."""
    self._cloud.on_workers("halt", seconds=END_SECONDS)
