"""One outcome from the exit codes of all processes of a run.

launch/local.sh runs this file by itself: `python3 outcome.py CODE ...`.
"""

import sys
from collections.abc import Sequence

# What the codes mean:
#   0     done
#   2     wrong usage or config
#   75    preempted after a save
#   143   killed by a SIGTERM before the trainer could save; counts as 75
#   lost  the machine went down; counts as 75
#   134   aborted because another process died, whose code says more
# Any other code is a fault.


def outcome_of(codes: Sequence[str]) -> str:
  """The outcome of a run: "0", "2", "75", "134" or the code of a fault."""
  if "2" in codes:
    return "2"
  known = ("0", "75", "143", "lost", "134")
  for code in codes:
    if code not in known:
      return code
  if "134" in codes:
    return "134"
  return "75" if set(codes) - {"0"} else "0"


if __name__ == "__main__":
  print(outcome_of(sys.argv[1:]))
