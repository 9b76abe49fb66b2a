"""What costs money: each case on the fake cloud, with the bill that it leaves.

The bill is in slice-minutes, see tests/fake_cloud/gcloud: with one look a
minute each look at a slice that is READY is a minute that is paid for.
"""

import re
import time

import pytest

from tests.fake_cloud.rig import START, WORKDIR

pytest_plugins = ("tests.fake_cloud.fixtures",)

SPOT = ("byol_digits", "--slice=v3-32", WORKDIR, "--yes")
QUICK = {"BYOL_SILENT_SECONDS": "0.4", "BYOL_STRAGGLER_SECONDS": "0.4"}
STUCK = {"polls": 0, "saves": False}
LONG = 200
ANEW = ["delete", "create", *START]
LOGS = [*START, "logs"]

# Name -> (plan of the cloud, arguments, environment, exit status, what was done
# after "create", a sentence that is said, most slice-minutes).
CASES = {
  "a worker freezes, and the run stands": (
    {"runs": [{"polls": LONG, "silent": [1]}]},
    (),
    QUICK,
    0,
    [*START, *ANEW, "delete"],
    "Workers that do not answer: 1.",
    20,
  ),
  "a worker freezes, and the others end with 1": (
    {"runs": [{"polls": 0, "codes": [1, 1], "silent": [1]}]},
    (),
    QUICK,
    0,
    [*START, *ANEW, "delete"],
    "A worker does not answer any more",
    20,
  ),
  "ssh to a worker fails, and the run goes on": (
    {"runs": [{"polls": 12, "silent": [1], "life": True}, STUCK]},
    (),
    {"BYOL_SILENT_SECONDS": "0.2", "BYOL_STRAGGLER_SECONDS": "0.2"},
    None,
    None,
    "Workers that do not answer: 1.",
    40,
  ),
  "preempted again and again before a save": (
    {"runs": [{"polls": 0, "codes": [143, 75], "saves": False}] * 9},
    (),
    {},
    1,
    START * 3,
    "3 attempts in a row brought no newer checkpoint.",
    12,
  ),
  "the slice is lost again and again before a save": (
    {"runs": [{"polls": 1, "node": "PREEMPTED", "saves": False}] * 9},
    ("--max-restarts=1",),
    {},
    1,
    [*START, *ANEW, "delete"],
    "2 attempts in a row brought no newer checkpoint.",
    8,
  ),
  "faults with progress between them": (
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
  "a process is killed for memory": (
    {"runs": [{"polls": 0, "codes": [1, 137], "saves": False}] * 9},
    ("--max-restarts=0", "--delete=always"),
    {},
    1,
    [*LOGS, "delete"],
    "the memory of its machine was full",
    4,
  ),
  "a fault, and nothing shall stay": (
    {"runs": [{"polls": 0, "codes": [1, 1], "saves": False}]},
    ("--max-restarts=0", "--delete=always"),
    {},
    1,
    [*LOGS, "delete"],
    "costs nothing any more",
    4,
  ),
  "a wrong config, and nothing shall stay": (
    {"runs": [{"polls": 0, "codes": [2, 134]}]},
    ("--delete=always",),
    {},
    2,
    [*LOGS, "delete"],
    "costs nothing any more",
    4,
  ),
  "the hours are over": (
    {"runs": [{"polls": LONG}]},
    ("--max-hours=0.0005",),  # 1.8 s
    {},
    75,
    [*START, "halt", "delete"],
    "--max-hours are over",
    40,
  ),
  "worker 0 has deleted a slice that was done": (
    {"runs": [{"polls": 1, "deleted": "done"}]},
    (),
    {},
    0,
    START,
    "Done, and the slice has deleted itself.",
    4,
  ),
  "worker 0 has deleted a slice over its hours": (
    {"runs": [{"polls": 1, "deleted": "hours"}]},
    (),
    {},
    75,
    START,
    "--max-hours are over, and the slice has deleted itself",
    4,
  ),
  "JAX sees no chips on a worker": (
    {"chips": [[1]]},
    (),
    {},
    0,
    [*START[:4], *ANEW, "delete"],
    "t1v-n-fake-w-1: RuntimeError: no TPU",
    6,
  ),
  "JAX never sees the chips of a worker": (
    {"chips": [[1]] * 9},
    ("--delete=always",),
    {},
    1,
    [*START[:4], *(ANEW[:-1] * 2), "delete"],
    "The TPU did not start. 3 attempts in a row",
    6,
  ),
  "the slice is repaired for ever": (
    {"runs": [{"polls": 1, "node": "REPAIRING"}]},
    (),
    {"BYOL_STUCK_SECONDS": "0.2"},
    0,
    [*START, *ANEW, "delete"],
    "byol-digits stays REPAIRING.",
    6,
  ),
  "the slice is created for ever": (
    {"states": ["CREATING"] * LONG},
    (),
    {"BYOL_STUCK_SECONDS": "0.2"},
    None,
    None,
    "byol-digits stays CREATING; making it anew.",
    0,
  ),
  "a Spot slice is stopped": (
    {"runs": [{"polls": 1, "node": "STOPPED"}]},
    (),
    {},
    0,
    [*START, *ANEW, "delete"],
    "byol-digits is STOPPED; making it anew.",
    6,
  ),
  "a slice is broken after a repair": (
    {"runs": [{"polls": 1, "node": "UNKNOWN"}]},
    (),
    {},
    0,
    [*START, *ANEW, "delete"],
    "byol-digits is UNKNOWN; making it anew.",
    6,
  ),
  "a queue is suspended": (
    {"queue": ["ACCEPTED", "SUSPENDING", "SUSPENDED"], "states": []},
    ("--queued",),
    {},
    None,
    None,
    "byol-digits is SUSPENDED.",
    0,
  ),
  "maintenance": (
    {"health": ["UNHEALTHY_MAINTENANCE"] * 3},
    (),
    {},
    0,
    [*START, "delete"],
    "byol-digits is READY, but UNHEALTHY_MAINTENANCE.",
    8,
  ),
}


QUICKLY = (
  "a worker freezes, and the run stands",
  "a fault, and nothing shall stay",
  "JAX sees no chips on a worker",
)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=() if name in QUICKLY else pytest.mark.slow)
    for name in CASES
  ],
)
def test_a_case_ends_and_the_bill_with_it(rig, name):
  plan, arguments, environment, status, done, sentence, minutes = CASES[name]
  rig.plan(**plan)
  if status is None:  # it goes on for as long as the cloud does not change
    watch_for(rig, (*SPOT, *arguments), environment, sentence)
    assert rig.cloud["minutes"] <= minutes
    return
  result = rig.run(*SPOT, *arguments, status=status, **environment)
  assert sentence in result.stderr
  halts = re.sub(r"(halt )+", "halt ", " ".join(rig.verbs) + " ")
  assert halts.split() == ["create", *done]
  assert rig.cloud["minutes"] <= minutes
  if done[-1] == "delete" or "deleted" in str(plan):
    assert rig.cloud["node"] is None


def watch_for(rig, arguments, environment, sentence):
  rig.environment.update(environment)
  process = rig.start(*arguments)
  until, text = time.monotonic() + 30, ""
  while sentence not in text:
    assert time.monotonic() < until, text
    text += process.stderr.readline()
