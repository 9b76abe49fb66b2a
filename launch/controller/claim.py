"""Whether another slice uses a workdir in a bucket, see claim.sh."""

from __future__ import annotations

import dataclasses
import re
import time

from launch.controller.calls import Console
from launch.controller.ending import Ended
from launch.controller.settings import Settings

_SECONDS = 120
HOLDS_SECONDS = 900  # see claim.sh
_LINE = re.compile(
  r"projects/([^/ ]+)/locations/([^/ ]+)/(?:nodes|queuedResources)/([^/ ]+) "
  r"[^ ]+ ([0-9]{1,12})"
)


@dataclasses.dataclass(frozen=True)
class Claim:
  """What a slice has said in a workdir.

  Attributes:
    slice: its project, zone and name.
    age: seconds since it said so, as far as the clocks agree.
  """

  slice: tuple[str, str, str]
  age: float


def read(text: str, now: float) -> Claim | None:
  """The claim that holds; None if there is none, as for what is malformed.

  Args:
    text: what gcloud printed, which may have notices besides the line.
    now: seconds of the epoch.
  """
  for line in text.splitlines():
    found = _LINE.fullmatch(line)
    if found and abs(now - int(found[4])) < HOLDS_SECONDS:
      age = max(0.0, now - int(found[4]))
      return Claim((found[1], found[2], found[3]), age)
  return None


def refuse_another(chosen: Settings, console: Console) -> None:
  """Looks whether another slice runs in the workdir.

  Only a bucket is asked: the trainer locks a workdir that is a folder.

  Raises:
    Ended: one does.
  """
  if not chosen.workdir.startswith("gs://"):
    return
  path = f"{chosen.workdir}/logs/RUNNING"
  answer = console.run(("gcloud", "storage", "cat", path), _SECONDS)
  if answer.status and not answer.error_matches("matched no objects"):
    console.say(
      f"Whether another slice runs in {chosen.workdir} cannot be found out, so "
      f"the workers look: {answer.last_error}"
    )
  claim = None if answer.status else read(answer.out, time.time())
  ours = (chosen.project, chosen.zone, chosen.name)
  if claim is None or claim.slice == ours:
    return
  project, zone, name = claim.slice
  there = dataclasses.replace(chosen, project=project, zone=zone, name=name)
  raise Ended(
    2,
    f"The slice {name} in {zone} uses {chosen.workdir}, as it said "
    f"{_ago(claim.age)}; two runs would destroy each other's checkpoints. Stop "
    f"it first ({there.own_command('stop')}), or give another --workdir. If "
    f"that slice is gone: gcloud storage rm {path}",
  )


def _ago(seconds: float) -> str:
  if seconds < 100:
    return f"{seconds:.0f} s ago"
  return f"{seconds / 60:.0f} min ago"
