"""Plays a case of cases.py to a launcher, and says what came of it."""

import dataclasses
import re
import subprocess
import time
from collections.abc import Sequence

from tests.fake_cloud.cases import KILLED, SPOT, Case
from tests.fake_cloud.rig import Rig, verb_of

NO_END = 60  # looks after which a case has no end
_SECONDS = 900


@dataclasses.dataclass(frozen=True)
class Played:
  """How a case went.

  Attributes:
    status: exit status, None if it had to be ended.
    said: the text on standard error.
    verbs: what was done in the cloud, without looks.
    minutes: slice-minutes that were paid for.
    slice: the state of what is left of it, "" if nothing is.
  """

  status: int | None
  said: str
  verbs: list[str]
  minutes: int
  slice: str

  @property
  def outcome(self) -> str:
    """Says it in a few words."""
    stays = ", slice stays" if self.slice else ""
    if self.status is None:
      return "no end"
    if self.status == KILLED:
      return f"is killed{stays}"
    return f"ends with {self.status}{stays}"

  @property
  def bill(self) -> str:
    """The slice-minutes, and whether there will be more."""
    return f"{self.minutes}" + (" and on" if self.slice == "READY" else "")


def play(
  rig: Rig, case: Case, arguments: Sequence[str], goes_on: bool = False
) -> Played:
  """Plays a case to the launcher of the rig.

  Args:
    rig: a launcher, and a cloud in which nothing has happened yet.
    case: what happens.
    arguments: of the launcher.
    goes_on: whether to end it when it has said its sentence; otherwise it has
      the time of `NO_END` looks. What the cloud does after a launcher was
      killed is looked at twice as often.
  """
  rig.plan(**case.plan)
  errors = rig.folder / "errors"
  with errors.open("w") as file:
    process = rig.start(*arguments, stderr=file)
  until = time.monotonic() + _SECONDS
  while process.poll() is None and time.monotonic() < until:
    if (goes_on or case.killed) and case.sentence in errors.read_text():
      break
    if [verb_of(call) for call in rig.calls].count("describe") > NO_END:
      break
    time.sleep(0.05)
  if case.killed:
    process.kill()
    process.wait()
    look_on(rig)
  status = process.poll()
  process.terminate()
  process.wait()
  said, cloud = errors.read_text(), rig.cloud
  left = cloud["node"]["states"][0] if cloud["node"] else ""
  return Played(status, said, rig.verbs, cloud["minutes"], left)


def look_on(rig: Rig) -> None:
  """Looks at the slice once a minute, as nobody does, until it is gone."""
  words = ["gcloud", "compute", "tpus", "tpu-vm", "describe", "byol-digits"]
  words += ["--project=my-project", "--zone=europe-west4-a"]
  words.append("--format=value(state)")
  for _ in range(2 * NO_END):
    if subprocess.run(
      words, env=rig.environment, capture_output=True, check=False
    ).returncode:
      break


def play_now(rig: Rig, case: Case) -> Played:
  """Plays a case to the launcher as it is.

  Where hours are over, which are seconds here, a slow machine may not get as
  far before as the case says. It then gets more of them.
  """
  rig.environment.update(case.environment)
  arguments, goes_on = (*SPOT, *case.arguments), case.status is None
  if not case.seconds:
    return play(rig, case, arguments, goes_on)
  for longer in (1, 10, 60):
    seconds = longer * case.seconds
    rig.forget()
    rig.environment["BYOL_POLL_SECONDS"] = str(seconds / 10)
    rig.environment["BYOL_RETRY_SECONDS"] = str(seconds)
    hours = f"--max-hours={seconds / 3600:f}"
    played = play(rig, case, (*arguments, hours), goes_on)
    if not problems(case, played):
      break
  return played


def problems(case: Case, played: Played) -> list[str]:
  """What is not as it must be, a sentence each."""
  found = []
  if played.status != case.status:
    found.append(f"The status is {played.status}, not {case.status}.")
  if case.sentence not in played.said:
    found.append(f"It does not say: {case.sentence}")
  # How often what hangs is ended is a matter of time.
  done = re.sub(r"(halt )+", "halt ", " ".join(played.verbs) + " ").split()
  if case.done is not None and done != ["create", *case.done]:
    found.append(f"It did {done}.")
  if played.minutes > case.minutes:
    found.append(f"{played.minutes} minutes are more than {case.minutes}.")
  deletes = case.done is not None and case.done[-1:] == ["delete"]
  gone = deletes or "deleted" in str(case.plan)
  if played.slice and (case.killed or (case.status == 0 and gone)):
    found.append("The slice stays.")
  return found
