"""What the states of slices mean, by the words of Google's API.

The states are those of googlecloudsdk/generated_clients/apis/tpu/v2 in Google
Cloud SDK 528: the enums of `Node` and of `QueuedResourceState`. Sentences in
quotation marks are from there.
"""

from __future__ import annotations

import dataclasses

from launch.controller.calls import Answer

# Columns of the describes; gcloud writes tabs between them.
NODE_FORMAT = "value(state,acceleratorType,health,networkEndpoints.len())"
QUEUE_FORMAT = "value(state.state)"

# Node and queue; what it means for us. READY and ACTIVE are looked at below.
_NODES = {
  "CREATING": "waiting",
  "STARTING": "waiting",
  "RESTARTING": "waiting",
  "REIMAGING": "waiting",
  "REPAIRING": "waiting",  # "may be unusable"
  "DELETING": "waiting",
  "UNHIDING": "waiting",
  "READY": "ready",
  "STOPPING": "held",
  "STOPPED": "held",
  "HIDING": "held",
  "HIDDEN": "held",
  "PREEMPTED": "dead",
  "TERMINATED": "dead",
  "UNKNOWN": "dead",  # "after a failed repair"
}
_QUEUES = {
  "CREATING": "queued",
  "ACCEPTED": "queued",
  "WAITING_FOR_RESOURCES": "queued",
  "PROVISIONING": "queued",
  "DELETING": "waiting",
  "SUSPENDING": "waiting",  # "the resources ... are being deleted"
  "SUSPENDED": "dead",  # "have been deleted"
  "FAILED": "dead",
  "ACTIVE": "",
}
# "Spot VM TPUs cannot be restarted, and must be recreated again" (gcloud's help
# of --spot), so nobody can have stopped one to go on with it later.
_SPOT = {"STOPPING": "waiting", "STOPPED": "dead"}


@dataclasses.dataclass(frozen=True)
class Slice:
  """The slice at one moment.

  Attributes:
    state: what it means for us: ready, queued (Google's queue may take days),
      waiting (something goes on that should end soon), absent, dead (delete and
      create again), held (somebody stopped it) or unknown.
    seen: Google's words for it.
    type: its accelerator type, "" if not said.
    workers: how many it has, 0 if not said.
    error: why the state is unknown.
  """

  state: str
  seen: str
  type: str = ""
  workers: int = 0
  error: str = ""


def of_queue(answer: Answer) -> Slice:
  """How a queued resource is; its state is "" when the node tells the rest."""
  if answer.status:
    return _without(answer)
  for line in reversed(answer.out.splitlines()):
    word = line.strip()
    if word in _QUEUES:
      return Slice(_QUEUES[word], word)
  return Slice("unknown", "UNKNOWN", error=answer.last_error)


def of_node(answer: Answer, queued: bool, spot: bool) -> Slice:
  """How a node is, from what its describe printed.

  It is the last line that looks like it: gcloud also prints warnings and update
  notices, not always on stderr.
  """
  if answer.status:
    found = _without(answer)
    # An active queue without its node has lost it.
    lost = queued and found.state == "absent"
    return dataclasses.replace(found, state="dead") if lost else found
  for line in reversed(answer.out.splitlines()):
    word, type_, health, workers = (line.split("\t") + [""] * 3)[:4]
    if word.strip() in _NODES:
      count = int(workers) if workers.strip().isdigit() else 0
      return _of_node(word.strip(), type_.strip(), health.strip(), count, spot)
  return Slice("unknown", "UNKNOWN", error=answer.last_error)


def _of_node(
  word: str, type_: str, health: str, workers: int, spot: bool
) -> Slice:
  state = _NODES[word]
  if spot:
    state = _SPOT.get(word, state)
  seen = word
  if word == "READY" and health not in ("", "HEALTHY", "HEALTH_UNSPECIFIED"):
    seen = f"READY, but {health}"
    # "The node is under maintenance ... and will resume running". The other
    # words, TIMEOUT and UNHEALTHY_TENSORFLOW, do not say that nothing can run.
    if health == "UNHEALTHY_MAINTENANCE":
      state = "waiting"
  return Slice(state, seen, type_, workers)


def _without(answer: Answer) -> Slice:
  if answer.error_matches("NOT_FOUND|was not found"):
    return Slice("absent", "ABSENT")
  return Slice("unknown", "UNKNOWN", error=answer.last_error)
