"""A gcloud without a cloud, for tests of launch/.

It takes the commands and flags that launch/ uses, spelt as in Google Cloud SDK
528, and refuses all others. The folder FAKE_CLOUD holds its state, a plan.json
of what is to go wrong, and calls.jsonl, the arguments of every call.

Keys of the plan, all optional. Lists are used up from the left.
  workers      how many the slice has (1)
  create       per creation: "ok", or the error that gcloud prints
  states       states of a new node before READY, one per describe; or a list
               of them per creation, of which the last stays
  queue        the same of a queued resource before ACTIVE; "gone" when somebody
               has deleted it
  describe     per describe: "ok", or an error
  ssh, scp     per call: "ok", or an error that all workers meet
  delete       per deletion: "ok", or an error
  health       per describe: the node's health (HEALTHY)
  chips        per creation: the workers on which JAX sees no chips
  shut         per creation: the workers that cannot write to the workdir
  taken        per creation: whether another slice runs in the workdir
  busy         per check: the workers whose chips another program holds
  may          whether the workers may delete the slice ("yes")
  policy       lines of a role, a tab and a member (an editor of the project)
  objects      what `gcloud storage ls --long` prints of the data
  claim        resource and age in seconds of what logs/RUNNING of the
               workdir says
  location     of the buckets (EUROPE-WEST4)
  storage      per command of gcloud storage: "ok", or an error
  setup        per set-up: the workers on which it fails
  disks        name -> what `compute disks describe` prints of it, columns of
               status, type and access mode; no other disk exists
  disk         the error with which every look at a disk ends
  writer       the instance to which a disk is attached for writing
  mount        per mounting: the workers on which it fails
  python       what stands for the interpreter on the workers; with it, every
               command really runs in bash, with HOME=node/worker-N
  runs         without `python`: what becomes of each start: {"polls": how often
               it is found running, "codes": exit code per worker ("running" for
               one that hangs, "lost" after a reboot), "node": the state that
               the node falls into, or all the states that follow,
               "silent": workers that do not answer, "life": whether the files
               of the run change (false), "saves": whether it leaves a newer
               checkpoint (true), "deleted": why worker 0 then deletes it}
  preempt      with `python`: paths; when one exists at a look at the workers,
               SIGTERM to all, SIGKILL after `grace` seconds, node PREEMPTED
  environment  with `python`, per worker: its environment
A worker whose folder has a file `frozen` does not answer, with `python`.

Where nothing really runs, a slice that has launch/guard.sh and is not set up is
gone after half an hour of the bill.

The bill: one slice-minute for each describe of a node that is READY, since the
controller looks once a minute; "minutes" of state.json.

It also answers the launcher of before launch/controller, see cases.py, which
asked for fewer columns, and told the workers less.
"""

import fcntl
import json
import sys
import time

from tests.fake_cloud.google.flags import parse
from tests.fake_cloud.google.state import Cloud, CloudError, cloud_folder

# One that a careless search for "quota" takes for a refusal.
WARNING = """
WARNING: Your active project does not match the quota project in your local
Application Default Credentials file. This might result in quota issues."""


def is_held(argv):
  """Whether a test holds this call up, see `holding` of rig.py."""
  try:
    count, words = (cloud_folder() / "hold").read_text().split(" ", 1)
  except FileNotFoundError:
    return False
  with open(cloud_folder() / "calls.jsonl") as file:
    calls = [" ".join(json.loads(line)) for line in file]
  came = sum(words in call for call in calls)
  return words in " ".join(argv) and came >= int(count)


def main(argv):
  """Runs a command; returns its exit status, or ends with it."""
  with open(cloud_folder() / "calls.jsonl", "a") as calls:
    calls.write(json.dumps(argv) + "\n")
  if "--" in argv:  # the rest goes to ssh itself
    argv = argv[: argv.index("--")]
  while is_held(argv):
    time.sleep(0.02)
  print(WARNING, file=sys.stderr)
  options = parse(argv)
  cloud = Cloud()
  if not cloud.plan.get("python"):  # no call lasts, so two come one by one
    lock = open(cloud_folder() / "lock", "w")  # noqa: SIM115
    fcntl.flock(lock, fcntl.LOCK_EX)
    cloud = Cloud()
  try:
    status = options.handler(cloud, options)
  except CloudError as error:
    print(f"ERROR: (gcloud) {error}", file=sys.stderr)
    status = 1
  cloud.save()
  return status or 0
