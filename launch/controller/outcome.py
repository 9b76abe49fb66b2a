"""One outcome from the exit codes of all processes of a run.

launch/local.sh runs this file by itself: `python3 outcome.py CODE ...`.
"""

import sys
from collections.abc import Sequence

# What the codes mean, the one that says most about the run first. Any other
# code is a fault, and stands where "fault" does.
_ORDER = (
  "2",  # wrong usage or config
  "lost",  # the machine went down, so that its peers ended with 1
  "137",  # killed, nearly always by the kernel for want of memory
  "fault",
  "134",  # aborted because another process died, whose code says more
  "75",  # preempted after a save
  "0",  # done
)
# A SIGTERM came before the trainer could save; it is resumed like the others.
_SAME = {"143": "75"}


def outcome_of(codes: Sequence[str]) -> str:
  """The outcome of a run: the code in `codes` that says most, 75 for 143."""

  def rank(code: str) -> int:
    return _ORDER.index(code if code in _ORDER else "fault")

  return min((_SAME.get(code, code) for code in codes), key=rank)


def in_words(event: str) -> str:
  """What an outcome means, for a message."""
  if event == "137":
    return (
      "137: a process was killed, nearly always by the kernel because the "
      "memory of its machine was full (fewer --config.loader.num_workers need "
      "less)"
    )
  return event


if __name__ == "__main__":
  print(outcome_of(sys.argv[1:]))
