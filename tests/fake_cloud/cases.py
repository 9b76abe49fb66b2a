"""What costs money: cases of the fake cloud, and how each must end."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tests.fake_cloud.rig import START, WORKDIR


@dataclasses.dataclass(frozen=True)
class Case:
  """What happens in the cloud, and what the launcher must do about it.

  Attributes:
    plan: of the fake cloud.
    arguments: of the launcher, besides those of all cases.
    environment: variables of the launcher, besides those of the rig.
    status: its exit status; None if it goes on for as long as the cloud does
      not change.
    done: what it must have done after "create"; None if that is not looked at.
    sentence: what it must say.
    minutes: the most slice-minutes that may be paid for.
    killed: whether the launcher is killed when it has said its sentence.
    seconds: what --max-hours leave, 0 if nothing is said of them.
  """

  plan: Mapping[str, Any]
  arguments: Sequence[str]
  environment: Mapping[str, str]
  status: int | None
  done: Sequence[str] | None
  sentence: str
  minutes: int
  killed: bool = False
  seconds: float = 0


SPOT = ("byol_digits", "--slice=v3-32", WORKDIR, "--yes")
QUICK = {"BYOL_SILENT_SECONDS": "0.4", "BYOL_STRAGGLER_SECONDS": "0.4"}
ALIVE = {"polls": 12, "silent": [1], "life": True}
LOST = {"polls": 1, "codes": ["lost", "lost"]}
WAITS = {"BYOL_POLL_SECONDS": "600"}  # until it is killed
LONG = 200
ANEW = ["delete", "create", *START]
LOGS = [*START, "logs"]
KILLED = -9  # by SIGKILL

CASES = {
  "a worker freezes, and the run stands": Case(
    {"runs": [{"polls": LONG, "silent": [1]}]},
    (),
    QUICK,
    0,
    [*START, *ANEW, "delete"],
    "Workers that do not answer: 1.",
    20,
  ),
  "a worker freezes, and the others end with 1": Case(
    {"runs": [{"polls": 0, "codes": [1, 1], "silent": [1]}]},
    (),
    QUICK,
    0,
    [*START, *ANEW, "delete"],
    "A worker does not answer any more",
    20,
  ),
  "ssh to a worker fails, and the run goes on": Case(
    {"runs": [{**ALIVE, "node": "PREEMPTED"}]},
    (),
    {"BYOL_SILENT_SECONDS": "0.2", "BYOL_STRAGGLER_SECONDS": "0.2"},
    0,
    [*START, *ANEW, "delete"],
    "byol-digits is PREEMPTED; making it anew. Resuming.",
    20,
  ),
  "preempted again and again before a save": Case(
    {"runs": [{"polls": 0, "codes": [143, 75], "saves": False}] * 99},
    (),
    {},
    1,
    START * 3,
    "3 attempts in a row brought no newer checkpoint.",
    12,
  ),
  "the slice is lost again and again before a save": Case(
    {"runs": [{"polls": 1, "node": "PREEMPTED", "saves": False}] * 99},
    ("--max-restarts=1",),
    {},
    1,
    [*START, *ANEW, "delete"],
    "2 attempts in a row brought no newer checkpoint.",
    8,
  ),
  "faults with progress between them": Case(
    {
      "runs": [{"polls": 0, "codes": [1, 1], "saves": x} for x in (0, 1, 0)],
      "states": [],
    },
    ("--max-restarts=1",),
    {},
    0,
    [*LOGS, *LOGS, *ANEW, "logs", *START, "delete"],
    "The run ended with 1. Resuming, on a new slice.",
    12,
  ),
  "a process is killed for memory": Case(
    {"runs": [{"polls": 0, "codes": [1, 137], "saves": False}] * 99},
    ("--max-restarts=0", "--delete=always"),
    {},
    1,
    [*LOGS, "delete"],
    "the memory of its machine was full",
    4,
  ),
  "a fault, and nothing shall stay": Case(
    {"runs": [{"polls": 0, "codes": [1, 1], "saves": False}]},
    ("--max-restarts=0", "--delete=always"),
    {},
    1,
    [*LOGS, "delete"],
    "costs nothing any more",
    4,
  ),
  "a wrong config, and nothing shall stay": Case(
    {"runs": [{"polls": 0, "codes": [2, 134]}]},
    ("--delete=always",),
    {},
    2,
    [*LOGS, "delete"],
    "costs nothing any more",
    4,
  ),
  "the hours are over": Case(
    {"runs": [{"polls": LONG}]},
    (),
    {},
    75,
    [*START, "halt", "delete"],
    "--max-hours are over",
    40,
    seconds=1.8,
  ),
  "worker 0 has deleted a slice that was done": Case(
    {"runs": [{"polls": 1, "deleted": "done"}]},
    (),
    {},
    0,
    START,
    "Done, and the slice has deleted itself.",
    4,
  ),
  "worker 0 has deleted a slice over its hours": Case(
    {"runs": [{"polls": 1, "deleted": "hours"}]},
    (),
    {},
    75,
    START,
    "--max-hours are over, and the slice has deleted itself",
    4,
  ),
  "JAX sees no chips on a worker": Case(
    {"chips": [[1]]},
    (),
    {},
    0,
    [*START[:4], *ANEW, "delete"],
    "t1v-n-fake-w-1: RuntimeError: no TPU",
    6,
  ),
  "a worker cannot write to the workdir": Case(
    {"shut": [[1]] * 99},
    ("--delete=always",),
    {},
    2,
    [*START[:4], "delete"],
    "t1v-n-fake-w-1 cannot write to the workdir gs://bucket/run: full.",
    2,
  ),
  "a worker may not use the bucket any more": Case(
    {"runs": [{"polls": 1, "node": "PREEMPTED"}], "shut": [[], [1]]},
    (),
    {},
    0,
    [*START, *ANEW[:-1], *START[:4], *ANEW, "delete"],
    "A worker cannot use its folders any more. Resuming, on a new slice",
    10,
  ),
  "JAX never sees the chips of a worker": Case(
    {"chips": [[1]] * 99},
    ("--delete=always",),
    {},
    1,
    [*START[:4], *(ANEW[:-1] * 2), "delete"],
    "The TPU did not start. 3 attempts in a row",
    6,
  ),
  "another program holds the chips of a worker": Case(
    {"busy": [[1]] * 99},
    ("--delete=always",),
    {},
    1,
    [*START[:4], *(START[:4] * 2), "delete"],
    "t1v-n-fake-w-1: Process 7 (notebook) holds the TPU",
    6,
  ),
  "another program has held the chips of a worker": Case(
    {"busy": [[0]]},
    (),
    {},
    0,
    [*START[:4], *START, "delete"],
    "Another program holds the TPU, see the lines above. Resuming",
    4,
  ),
  "the slice is lost again and again in the set-up": Case(
    {"states": [["READY", *["PREEMPTED"] * LONG]]},
    ("--max-restarts=1",),
    {"BYOL_MAX_TRIES": "1"},
    1,
    ["scp", "delete", "create", "scp", "delete"],
    "2 attempts in a row brought no newer checkpoint.",
    2,
  ),
  "the hours are over in the set-up": Case(
    {"setup": [[1]] * LONG},
    (),
    {"BYOL_MAX_TRIES": "200"},
    75,
    ["scp", "unpack", "setup", "delete"],
    "--max-hours are over; the workdir stays.",
    2,
    seconds=1.8,
  ),
  "a node exists that nobody sees": Case(
    {"create": ["ALREADY_EXISTS: a"] * LONG},
    ("--delete=always",),
    {"BYOL_MAX_TRIES": "3"},
    1,
    ["create"] * 2,
    "Google Cloud does not create byol-digits: ERROR: (gcloud) ALREADY_EXISTS",
    0,
  ),
  "the slice is repaired for ever": Case(
    {"runs": [{"polls": 1, "node": "REPAIRING"}], "states": []},
    (),
    {"BYOL_STUCK_SECONDS": "0.2"},
    0,
    [*START, *ANEW, "delete"],
    "byol-digits stays REPAIRING.",
    6,
  ),
  "the slice is created for ever": Case(
    {"states": ["CREATING"] * LONG},
    (),
    {"BYOL_STUCK_SECONDS": "0.2"},
    None,
    None,
    "byol-digits stays CREATING; making it anew.",
    0,
  ),
  "the laptop is gone while the slice waits in the queue": Case(
    {"queue": ["WAITING_FOR_RESOURCES"] * LONG},
    ("--queued",),
    WAITS,
    KILLED,
    [],
    "byol-digits is WAITING_FOR_RESOURCES.",
    60,
    killed=True,
  ),
  "the laptop is gone while the slice is made": Case(
    {"states": ["CREATING"] * 60},
    (),
    WAITS,
    KILLED,
    [],
    "byol-digits is CREATING.",
    60,
    killed=True,
  ),
  "a queue is deleted by somebody else": Case(
    {"queue": ["WAITING_FOR_RESOURCES", "gone"]},
    ("--queued",),
    {},
    1,
    [],
    "byol-digits is gone: it deleted itself, because nobody had set it up for",
    0,
  ),
  "another slice runs in the workdir": Case(
    {"claim": ["projects/my-project/locations/us-east1-d/nodes/other", 300]},
    (),
    {},
    2,
    None,
    "The slice other in us-east1-d uses gs://bucket/run, as it said 5 min",
    0,
  ),
  "a Spot slice is stopped": Case(
    {"runs": [{"polls": 1, "node": "STOPPED"}]},
    (),
    {},
    0,
    [*START, *ANEW, "delete"],
    "byol-digits is STOPPED; making it anew.",
    6,
  ),
  "a slice is broken after a repair": Case(
    {"runs": [{"polls": 1, "node": "UNKNOWN"}]},
    (),
    {},
    0,
    [*START, *ANEW, "delete"],
    "byol-digits is UNKNOWN; making it anew.",
    6,
  ),
  "a queue is suspended": Case(
    {"queue": ["ACCEPTED", "SUSPENDING", "SUSPENDED"], "states": []},
    ("--queued",),
    {},
    None,
    None,
    "byol-digits is SUSPENDED.",
    0,
  ),
  "maintenance": Case(
    {"health": ["UNHEALTHY_MAINTENANCE"] * 3},
    (),
    {},
    0,
    [*START, "delete"],
    "byol-digits is READY, but UNHEALTHY_MAINTENANCE.",
    8,
  ),
  "the slice is repaired, and has lost its run": Case(
    {"runs": [{**LOST, "node": ["REPAIRING", "REPAIRING", "READY"]}]},
    (),
    {},
    0,
    [*START, *START, "delete"],
    "A worker went down and lost its run. Resuming",
    8,
  ),
  "a Spot slice is being stopped": Case(
    {"runs": [{"polls": 1, "node": ["STOPPING", "STOPPING", "STOPPED"]}]},
    (),
    {},
    0,
    [*START, *ANEW, "delete"],
    "byol-digits is STOPPED; making it anew.",
    6,
  ),
  "an on-demand slice is stopped by hand": Case(
    {"runs": [{"polls": 1, "node": ["STOPPING", "STOPPED"]}]},
    ("--on-demand",),
    {},
    1,
    START,
    "byol-digits is STOPPING, which somebody did by hand",
    3,
  ),
  "a queue fails once": Case(
    {"queue": [["ACCEPTED", "FAILED"], []], "states": []},
    ("--queued",),
    {},
    0,
    ["delete", "create", *START, "delete"],
    "byol-digits is FAILED.",
    4,
  ),
  "a queue fails again and again": Case(
    {"queue": [["ACCEPTED", "FAILED"]], "states": []},
    ("--queued",),
    {},
    1,
    [*["delete", "create"] * 4, "delete"],
    "Google's queue has failed 5 times",
    0,
  ),
  "a delete is refused for five minutes": Case(
    {"delete": ["FAILED_PRECONDITION: the node is being updated"] * 4},
    (),
    {},
    0,
    [*START, *["delete"] * 5],
    "byol-digits is deleted; it costs nothing any more.",
    8,
  ),
  "a delete stays refused": Case(
    {"delete": ["PERMISSION_DENIED: tpu.nodes.delete"] * 9},
    (),
    {},
    1,
    [*START, *["delete"] * 5],
    "could not be deleted and is still paid for. By hand:\ngcloud compute",
    9,
  ),
}
