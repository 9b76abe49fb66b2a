"""Slices and queued resources, which come, go and are paid for."""

import contextlib
import os
import signal
import sys
import time

from tests.fake_cloud.google.booting import make_machines, read_metadata
from tests.fake_cloud.google.state import (
  CloudError,
  is_at,
  need_node,
  next_of,
  next_state,
  node_folder,
)

# The minutes after which guard.sh deletes a slice that nobody sets up.
GUARD_LOOKS = 60


def states_of(cloud, key, otherwise):
  """The states that a new thing goes through before it is there."""
  states = cloud.plan.get(key, otherwise)
  if states and isinstance(states[0], list):
    return next_of(states)
  return states


def make_node(cloud, options):
  states = states_of(cloud, "states", ["CREATING"])
  cloud.state["node"] = {
    "states": [*states, "READY"],
    "type": options.accelerator_type,
    "at": [options.name, options.zone],
  }
  cloud.state["node"]["blind"] = cloud.next("chips", [])
  cloud.state["node"]["shut"] = cloud.next("shut", [])
  cloud.state["node"]["taken"] = cloud.next("taken", False)
  cloud.state["run"] = None
  metadata = read_metadata(options)
  cloud.state["node"]["metadata"] = metadata
  if "byol-resource" in metadata and not cloud.plan.get("python"):
    assert metadata["byol-resource"] == resource_of(options), metadata
    cloud.state["node"]["guard"] = GUARD_LOOKS
  make_machines(cloud, metadata)


def resource_of(options):
  """The name in the TPU API of what a creation makes."""
  kind = "queuedResources" if "node_id" in options else "nodes"
  where = f"projects/{options.project}/locations/{options.zone}"
  return f"{where}/{kind}/{options.name}"


def kill_processes(grace):
  """What a machine does that is switched off: SIGTERM, then SIGKILL."""
  units = list(node_folder().glob("*/unit"))
  pids = [int((unit / "pid").read_text()) for unit in units]
  for path in (
    *node_folder().glob("*/tend.pid"),
    *node_folder().glob("*/guard.pid"),
  ):
    with contextlib.suppress(ProcessLookupError):
      os.killpg(int(path.read_text()), signal.SIGKILL)
  for signal_number in (signal.SIGTERM, signal.SIGKILL):
    for pid in pids:
      with contextlib.suppress(ProcessLookupError):
        # systemd tells the main process alone; no power is no power for all.
        kill = os.kill if signal_number == signal.SIGTERM else os.killpg
        kill(pid, signal_number)
    until = time.monotonic() + grace
    while time.monotonic() < until and any(map(goes_on, units)):
      time.sleep(0.05)


def goes_on(unit):
  """Whether its process runs, or what records the end of it."""
  return (unit / "state").read_text() in ("active", "deactivating")


def check_data_disk(cloud, options):
  """A disk that is attached as SDK 528 reads --data-disk, and exists."""
  if not options.data_disk:
    return
  given = dict(word.split("=", 1) for word in options.data_disk.split(","))
  where = f"projects/{options.project}/zones/{options.zone}/disks/"
  assert given.keys() == {"source", "mode"}, given
  assert given["mode"] == "read-only", "only one worker may write"
  assert given["source"].startswith(where), given
  assert given["source"][len(where) :] in cloud.plan["disks"]


def create(cloud, options):
  check_data_disk(cloud, options)
  cloud.fail_if_planned("create")
  if cloud.state["node"] is not None:
    raise CloudError(f"ALREADY_EXISTS: Resource '{options.name}' exists")
  make_node(cloud, options)
  print(f"Created tpu [{options.name}].", file=sys.stderr)


def describe(cloud, options):
  cloud.fail_if_planned("describe")
  need_node(cloud, options.name, options.zone)
  columns = options.format.removeprefix("value(").removesuffix(")").split(",")
  # As wrappers and update checks of gcloud do.
  print("WARNING: Could not setup log file")
  node = cloud.state["node"]
  state = next_state(node)
  if state == "gone":
    cloud.state["queue"] = cloud.state["node"] = None
    need_node(cloud, options.name, options.zone)
  cloud.state["minutes"] += state == "READY"
  if state == "READY" and "guard" in node:
    node["guard"] -= 1
    if not node["guard"]:
      cloud.state["node"] = cloud.state["queue"] = None
  workers = len(cloud.workers) if state == "READY" else 0
  health = cloud.next("health", "HEALTHY") if state == "READY" else ""
  told = {
    "state": state,
    "acceleratorType": node["type"],
    "health": health,
    "networkEndpoints.len()": str(workers),
  }
  print("\t".join(told[column] for column in columns))
  print("To take a quick anonymous survey, run: gcloud survey")


def delete(cloud, options):
  assert options.quiet, "gcloud would ask"
  cloud.fail_if_planned("delete")
  need_node(cloud, options.name, options.zone)
  if cloud.plan.get("python"):
    kill_processes(2)
  cloud.state["node"] = None


def queue_create(cloud, options):
  assert options.node_id == options.name
  check_data_disk(cloud, options)
  cloud.fail_if_planned("create")
  states = states_of(cloud, "queue", ["WAITING_FOR_RESOURCES"])
  at = [options.name, options.zone]
  cloud.state["queue"] = {"states": [*states, "ACTIVE"], "at": at}
  make_node(cloud, options)


def queue_describe(cloud, options):
  cloud.fail_if_planned("describe")
  if not is_at(cloud.state["queue"], options.name, options.zone):
    raise CloudError("NOT_FOUND: Resource was not found")
  assert options.format == "value(state.state)", options.format
  state = next_state(cloud.state["queue"])
  if state == "gone":
    cloud.state["queue"] = cloud.state["node"] = None
    raise CloudError("NOT_FOUND: Resource was not found")
  print(state)


def queue_delete(cloud, options):
  assert options.quiet, "gcloud would ask"
  assert options.force, "nodes of the queue would stay"
  cloud.fail_if_planned("delete")
  cloud.state["queue"] = cloud.state["node"] = None
