"""Buckets, disks, projects and what gcloud is set to."""

import os
import re
import sys
import time

from tests.fake_cloud.google.state import CloudError

NO_OBJECTS = "One or more URLs matched no objects."


def storage_ls(cloud, options):
  cloud.fail_if_planned("storage")
  if options.long and options.paths[0].endswith("/**"):
    if not cloud.plan.get("objects"):
      raise CloudError(NO_OBJECTS)
    print(*cloud.plan["objects"], sep="\n")
  elif options.long:
    run = cloud.state["run"] or {}
    cloud.state["changes"] += bool(run.get("life"))
    print(
      f"  83  2026-01-01T00:00:{cloud.state['changes']:02}Z  gs://b/m.jsonl"
    )
  elif options.paths[0].endswith("/checkpoints/*/commit_success.txt"):
    if cloud.state["checkpoint"] < 0:
      raise CloudError(NO_OBJECTS)
    for step in (cloud.state["checkpoint"], 0):
      print(options.paths[0].replace("*", str(step)))
  else:
    print(*options.paths)


def storage_cp(cloud, options):
  cloud.fail_if_planned("storage")
  assert os.path.isfile(options.source), options.source


def storage_cat(cloud, options):
  if options.path.endswith("/logs/RUNNING") and cloud.plan.get("claim"):
    resource, age = cloud.plan["claim"]
    print(f"{resource} 20260102-030405 {int(time.time()) - age}")
    return
  run = cloud.state["run"] or {}
  if not run.get("deleted") or f"/{run['attempt']}/" not in options.path:
    raise CloudError(NO_OBJECTS)
  print(run["deleted"])


def storage_describe(cloud, options):
  cloud.fail_if_planned("storage")
  assert options.bucket.startswith("gs://")
  print(cloud.plan.get("location", "EUROPE-WEST4"))


def disk_describe(cloud, options):
  columns = "status,type.basename(),accessMode"
  assert options.format == f"value({columns})", options.format
  if cloud.plan.get("disk"):
    raise CloudError(cloud.plan["disk"])
  if options.name not in cloud.plan.get("disks", {}):
    # As api_lib/compute/client_adapter.py of SDK 528 prints the API's words.
    where = f"projects/{options.project}/zones/{options.zone}/disks"
    raise CloudError(
      "Could not fetch resource:\n - The resource "
      f"'{where}/{options.name}' was not found"
    )
  print("\t".join(cloud.plan["disks"][options.name]))


def instances_list(cloud, options):
  """The flags act in the order flatten, filter (gcloud's own help of both)."""
  assert options.flatten == "disks[]"
  match = re.fullmatch(
    r"disks.source ~ /disks/([a-z0-9-]+)\$ AND disks.mode = READ_WRITE",
    options.filter,
  )
  assert match, options.filter
  assert options.format == "value(name)"
  if cloud.plan.get("writer"):
    print(cloud.plan["writer"])


def project_describe(cloud, options):
  assert options.format == "value(projectNumber)", options.format
  print("1234567890")


def project_policy(cloud, options):
  assert options.flatten == "bindings[].members", options.flatten
  assert options.format == "value(bindings.role,bindings.members)"
  member = "serviceAccount:1234567890-compute@developer.gserviceaccount.com"
  for line in cloud.plan.get("policy", [f"roles/editor\t{member}"]):
    if line == "denied":
      raise CloudError("PERMISSION_DENIED: resourcemanager.projects.get")
    print(line)


def print_property(cloud, options):
  print("Your active configuration is: [default]", file=sys.stderr)
  print(cloud.plan.get("project", ""))
