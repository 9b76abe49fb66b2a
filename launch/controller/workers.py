"""What the workers said about the run, and what it amounts to."""

from __future__ import annotations

import dataclasses

from launch.controller.calls import Answer


@dataclasses.dataclass(frozen=True)
class Run:
  """The run on all workers.

  Attributes:
    status: of those that answered: running, mixed, exited, stopped or absent;
      unreachable when none did.
    codes: exit code of every worker that has ended; "lost" without one.
    answered: names of the workers that answered.
    silent: how many did not.
    run_id: of the run that was started there, "" if none.
    commit: what it was started from.
    attempt: name of the attempt, "" if not said.
    seconds_left: before the deadline of the slice, None without one.
  """

  status: str
  codes: tuple[str, ...] = ()
  answered: tuple[str, ...] = ()
  silent: int = 0
  run_id: str = ""
  commit: str = ""
  attempt: str = ""
  seconds_left: float | None = None

  @property
  def silent_numbers(self) -> list[int]:
    """Numbers of the silent workers, by the end of the others' names."""
    said = {name.rpartition("-w-")[2] for name in self.answered}
    everyone = range(len(self.answered) + self.silent)
    return [number for number in everyone if str(number) not in said]


def read(answer: Answer, expected: int) -> Run:
  """Reads the lines of `worker.sh state`, see print_state there.

  Answers count although others are missing: gcloud fails as a whole when one
  worker does.

  Args:
    answer: of all workers that were asked.
    expected: how many there are; 0 if that is not known.
  """
  lines = [x.split() for x in answer.out.splitlines()]
  lines = [x for x in lines if len(x) >= 6 and x[0] == "byol-state"]
  # A worker without our code has no run either.
  without = answer.err.count("worker.sh: No such file")
  started = [line for line in lines if line[2] != "absent"]
  ended = [line for line in started if line[2] != "running"]
  absent = len(lines) - len(started) + without
  missing = expected - len(lines) - without
  if not expected:
    missing = 1 if answer.status and not without else 0
  codes = ["lost" if line[2] == "lost" else line[3] for line in ended]
  if started:
    # A worker that knows of no run, beside others that do, was replaced.
    codes += ["lost"] * absent
  some_run = len(started) > len(ended)
  silent = max(0, missing)
  if some_run:
    status = "mixed" if codes else "running"
  elif any(line[2] == "stopped" for line in ended):
    status = "stopped"
  elif codes:
    status = "mixed" if silent else "exited"
  else:
    status = "absent" if absent and not silent else "unreachable"
  last = started[-1] if started else []
  return Run(
    status,
    codes=tuple(codes),
    answered=tuple(line[1] for line in lines),
    silent=silent,
    run_id=last[4] if last else "",
    commit=last[5] if last else "",
    attempt=last[6] if len(last) > 6 else "",
    seconds_left=_number(last[7]) if len(last) > 7 else None,
  )


def _number(text: str) -> float | None:
  try:
    return float(text)
  except ValueError:
    return None


@dataclasses.dataclass(frozen=True)
class Check:
  """Whether the workers can run, and may delete the slice.

  Attributes:
    taken: a sentence if another slice runs in the workdir, see claim.sh.
    shut: a sentence for each folder that a worker cannot use.
    busy: a sentence for each worker whose chips another program or a run holds.
    blind: a sentence for each other worker on which JAX sees no chips.
    missing: how many workers gave no answer.
    may_delete: yes, no or unknown.
  """

  taken: tuple[str, ...]
  shut: tuple[str, ...]
  busy: tuple[str, ...]
  blind: tuple[str, ...]
  missing: int
  may_delete: str


def read_check(answer: Answer, expected: int) -> Check:
  """Reads the lines of `worker.sh check`, see check in check.sh."""
  taken: list[str] = []
  shut: list[str] = []
  busy: list[str] = []
  blind: list[str] = []
  seen, may_delete = 0, "unknown"
  for line in answer.out.splitlines():
    words = line.split(maxsplit=3)
    if words[:1] == ["byol-check"] and len(words) > 3:
      seen += 1
      sentences = {"held": busy, "failed": blind}.get(words[2])
      if sentences is not None:
        sentences.append(f"{words[1]}: {words[3]}")
    elif words[:1] == ["byol-taken"]:
      taken.append(" ".join(words[1:]))
    elif words[:1] == ["byol-folder"]:
      shut.append(" ".join(words[1:]))
    elif words[:1] == ["byol-may"] and len(words) > 2:
      may_delete = words[2]
  missing = max(0, max(expected, 1) - seen)
  return Check(
    taken=tuple(taken),
    shut=tuple(shut),
    busy=tuple(busy),
    blind=tuple(blind),
    missing=missing,
    may_delete=may_delete,
  )
