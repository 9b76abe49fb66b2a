"""What the workers said about the run, and what it amounts to."""

from __future__ import annotations

import dataclasses

from launch.controller.calls import Answer


@dataclasses.dataclass(frozen=True)
class Run:
  """The run on all workers.

  Attributes:
    status: running, mixed, exited, stopped, absent or unreachable.
    codes: exit code of every worker that has ended; "lost" without one.
    run_id: of the run that was started there, "" if none.
    commit: what it was started from.
  """

  status: str
  codes: tuple[str, ...] = ()
  run_id: str = ""
  commit: str = ""


def read(answer: Answer) -> Run:
  """Reads the lines of `worker.sh state`, see print_state there."""
  if answer.status:
    # A worker without our code has no run either.
    without = "worker.sh: No such file" in answer.err
    return Run("absent" if without else "unreachable")
  running = absent = 0
  stopped = False
  run_id = commit = ""
  codes = []
  for line in answer.out.splitlines():
    if not line.startswith("byol-state "):
      continue
    word, code, its_id, its_commit = line.split()[2:6]
    if word == "absent":
      absent += 1
      continue
    run_id, commit = its_id, its_commit
    if word == "running":
      running += 1
    else:
      codes.append("lost" if word == "lost" else code)
    stopped = stopped or word == "stopped"
  if codes or running:
    # A worker that knows of no run, beside others that do, was replaced.
    codes += ["lost"] * absent
  if running:
    status = "mixed" if codes else "running"
  elif stopped:
    status = "stopped"
  elif codes:
    status = "exited"
  else:
    status = "absent" if absent else "unreachable"
  return Run(status, tuple(codes), run_id, commit)
