"""What the fake cloud keeps between two calls of gcloud."""

import json
import os
import pathlib


def cloud_folder():
  """Where it is kept."""
  return pathlib.Path(os.environ["FAKE_CLOUD"])


def node_folder():
  """The folders of the workers of the slice that there is."""
  return cloud_folder() / "node"


class CloudError(Exception):
  """Ends the command with gcloud's "ERROR: ..." and status 1."""


class Cloud:
  """What is kept between calls: the plan that is left, and what exists."""

  def __init__(self):
    self.file = cloud_folder() / "state.json"
    if self.file.exists():
      self.state = json.loads(self.file.read_text())
    else:
      plan = cloud_folder() / "plan.json"
      self.state = {"node": None, "queue": None, "run": None, "halted": False}
      self.state |= {"checkpoint": -1, "changes": 0, "minutes": 0}
      self.state["plan"] = json.loads(plan.read_text())
    self.plan = self.state["plan"]
    # Worker 0 has deleted the slice, see worker_bin/curl.
    if (cloud_folder() / "deleted-by-worker").exists():
      (cloud_folder() / "deleted-by-worker").unlink()
      self.state["node"] = self.state["queue"] = None

  def save(self):
    part = self.file.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(self.state))
    part.replace(self.file)

  def next(self, key, otherwise="ok"):
    """The next entry of a list of the plan."""
    return self.plan[key].pop(0) if self.plan.get(key) else otherwise

  def fail_if_planned(self, key):
    error = self.next(key)
    if error != "ok":
      raise CloudError(error)

  @property
  def workers(self):
    return range(self.plan.get("workers", 1))


def next_state(thing):
  """The state of now; the one after it is that of the next look."""
  return next_of(thing["states"])


def next_of(entries):
  """The first, which is used up unless it is the last."""
  return entries.pop(0) if len(entries) > 1 else entries[0]


def node_state(cloud):
  return cloud.state["node"]["states"][0]


def need_node(cloud, name, zone):
  if not is_at(cloud.state["node"], name, zone):
    raise CloudError(f"NOT_FOUND: Resource 'nodes/{name}' was not found")


def is_at(thing, name, zone):
  """Whether it exists, by that name in that zone."""
  return thing is not None and thing["at"] == [name, zone]


def need_running_node(cloud, name, zone):
  need_node(cloud, name, zone)
  if node_state(cloud) != "READY":
    raise CloudError(f"TPU is in state {node_state(cloud)}, it is unusable")


def pick_workers(cloud, which):
  return list(cloud.workers) if which == "all" else [int(which)]
