"""ssh and scp to workers on which every command really runs, or is played."""

import os
import shlex
import sys
import time

from tests.fake_cloud.google.booting import worker_environment
from tests.fake_cloud.google.nodes import kill_processes
from tests.fake_cloud.google.played import after_look, answer
from tests.fake_cloud.google.state import (
  need_running_node,
  node_folder,
  pick_workers,
)


def scp(cloud, options):
  cloud.fail_if_planned("scp")
  import shutil  # as in booting.py

  *sources, target = options.paths
  name, _, folder = target.partition(":")
  need_running_node(cloud, name, options.zone)
  assert folder == "", folder
  for worker in pick_workers(cloud, options.worker):
    for source in sources:
      shutil.copy(source, node_folder() / f"worker-{worker}")


def ssh(cloud, options):
  need_running_node(cloud, options.name, options.zone)
  cloud.fail_if_planned("ssh")
  words = shlex.split(options.command)
  failing = cloud.next("setup", []) if "setup" in words[2:3] else []
  if "check" in words[2:3]:
    failing = cloud.state["node"]["blind"]
    cloud.state["busy"] = cloud.next("busy", [])
  if "disk" in words[2:3]:
    failing = cloud.next("mount", [])
  if cloud.plan.get("python"):
    look_for_preemption(cloud, words)
    need_running_node(cloud, options.name, options.zone)
  workers = pick_workers(cloud, options.worker)
  if cloud.plan.get("python"):
    statuses = run_really(cloud, workers, options.command, failing)
  else:
    statuses = [answer(cloud, worker, words, failing) for worker in workers]
    after_look(cloud, words)
  for worker, status in zip(workers, statuses, strict=True):
    if status:
      print(
        f"##### Command execution on worker {worker} failed with exit status "
        f"{status}. Continuing.",
        file=sys.stderr,
      )
  return next((status for status in statuses if status), 0)


def run_really(cloud, workers, command, failing):
  """Exit statuses of the command, run on all those workers at once."""
  import subprocess  # as in booting.py

  processes = []
  frozen = [
    x for x in workers if (node_folder() / f"worker-{x}" / "frozen").exists()
  ]
  for worker in workers:
    if worker in frozen:
      continue
    environment = worker_environment(cloud, worker)
    if worker in failing:
      environment["FAKE_SETUP_FAILS"] = "1"
    processes.append(
      subprocess.Popen(
        ["bash", "-c", command],
        cwd=environment["HOME"],
        env=environment,
        stdin=subprocess.DEVNULL,
      )
    )
  statuses = [process.wait() for process in processes]
  if frozen:
    time.sleep(600)  # until it is killed for it
  return statuses


def look_for_preemption(cloud, words):
  paths = cloud.plan.get("preempt", [])
  if words[-1] == "state" and paths and os.path.exists(paths[0]):
    paths.pop(0)
    kill_processes(cloud.plan.get("grace", 30))
    cloud.state["node"]["states"] = ["PREEMPTED"]
