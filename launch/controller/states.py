"""What the states of slices mean, by the words of Google's API.

The states are those of googlecloudsdk/generated_clients/apis/tpu/v2 in Google
Cloud SDK 528: the enums of `Node` and of `QueuedResourceState`.
"""

from __future__ import annotations

import re

from launch.controller.calls import Answer

_NODE = [
  "CREATING",
  "READY",
  "RESTARTING",
  "REIMAGING",
  "DELETING",
  "REPAIRING",
  "STOPPED",
  "STOPPING",
  "STARTING",
  "PREEMPTED",
  "TERMINATED",
  "HIDING",
  "HIDDEN",
  "UNHIDING",
]
_QUEUE = [
  "CREATING",
  "ACCEPTED",
  "WAITING_FOR_RESOURCES",
  "PROVISIONING",
  "ACTIVE",
  "FAILED",
  "DELETING",
  "SUSPENDING",
  "SUSPENDED",
]
# A line that has nothing but a state and perhaps an accelerator type.
_LINE = re.compile(
  rf"({'|'.join(sorted({*_NODE, *_QUEUE}))})(?:\s+([a-z0-9]+-[0-9]+))?\s*"
)
_WAITING = [
  "CREATING",
  "STARTING",
  "RESTARTING",
  "REPAIRING",
  "REIMAGING",
  "DELETING",
  "UNHIDING",
]


def read(answer: Answer) -> tuple[str, str]:
  """(state, accelerator type) from what a describe printed.

  It is the last line that looks like it: gcloud also prints warnings and update
  notices, not always on stderr. The state is ABSENT when the thing does not
  exist, UNKNOWN when gcloud could not tell; the type is "" when not said.
  """
  if answer.status == 0:
    found = [_LINE.fullmatch(line) for line in answer.out.splitlines()]
    hits = [match for match in found if match]
    return (hits[-1][1], hits[-1][2] or "") if hits else ("UNKNOWN", "")
  if answer.error_matches("NOT_FOUND|was not found"):
    return "ABSENT", ""
  return "UNKNOWN", ""


def of_queue(state: str) -> str | None:
  """What it means for us; None when the node tells the rest."""
  if state == "ACTIVE":
    return None
  if state in ("ABSENT", "UNKNOWN"):
    return state.lower()
  if state in ("FAILED", "SUSPENDED", "SUSPENDING"):
    return "dead"
  return "waiting"


def of_node(state: str, queued: bool) -> str:
  """What it means for us.

  Returns:
    ready, waiting, absent, dead (delete and create again), held (somebody
    stopped it) or unknown.
  """
  if state == "ABSENT":
    # An active queue without its node has lost it.
    return "dead" if queued else "absent"
  if state in ("READY", "UNKNOWN"):
    return state.lower()
  if state in ("STOPPED", "STOPPING", "HIDING", "HIDDEN"):
    return "held"
  if state in _WAITING:
    return "waiting"
  return "dead"  # PREEMPTED, TERMINATED, FAILED
