"""The commands and flags of gcloud that launch/ uses; others are refused."""

import argparse
import sys

from tests.fake_cloud.google.machines import scp, ssh
from tests.fake_cloud.google.nodes import (
  create,
  delete,
  describe,
  queue_create,
  queue_delete,
  queue_describe,
)
from tests.fake_cloud.google.others import (
  disk_describe,
  instances_list,
  print_property,
  project_describe,
  project_policy,
  storage_cat,
  storage_cp,
  storage_describe,
  storage_ls,
)

TPUS = ("compute", "tpus")


class _Other:
  """Takes the flags of a command that was not given, and forgets them."""

  def add_argument(self, *_, **__):
    pass


def parse(argv):
  """The same flags as gcloud's for the commands that launch/ uses.

  Only the parser of the command that was given is made, because most of the
  time of a call would go into the others.
  """
  asked = []

  def command(path, handler):
    if tuple(argv[: len(path)]) != path:
      return _Other()
    name = " ".join(("gcloud", *path))
    parser = argparse.ArgumentParser(prog=name, allow_abbrev=False)
    parser.set_defaults(handler=handler)
    if path[0] == "compute":
      parser.add_argument("--project", required=True)
      zone = "--zones" if path[1] == "instances" else "--zone"
      parser.add_argument(zone, required=True)
      parser.add_argument("--quiet", action="store_true")
    asked.append((parser, argv[len(path) :]))
    return parser

  add_slices(command)
  add_workers(command)
  add_others(command)
  if not asked:
    print(
      f"ERROR: (gcloud) launch/ has no such command: {argv}", file=sys.stderr
    )
    sys.exit(1)
  ((parser, rest),) = asked
  return parser.parse_args(rest)


def add_slices(command):
  for group, suffix, handlers in (
    ("tpu-vm", "--version", (create, describe, delete)),
    (
      "queued-resources",
      "--runtime-version",
      (queue_create, queue_describe, queue_delete),
    ),
  ):
    for handler, verb in zip(
      handlers, ("create", "describe", "delete"), strict=True
    ):
      parser = command((*TPUS, group, verb), handler)
      parser.add_argument("name")
      if verb == "create":
        parser.add_argument(suffix, required=True)
        parser.add_argument("--accelerator-type", required=True)
        parser.add_argument("--spot", action="store_true")
        parser.add_argument("--reserved", action="store_true")
        parser.add_argument("--internal-ips", action="store_true")
        for name in ("service-account", "network", "subnetwork", "data-disk"):
          parser.add_argument(f"--{name}")
        for name in ("labels", "tags", "metadata", "metadata-from-file"):
          parser.add_argument(f"--{name}")
      if verb == "describe":
        parser.add_argument("--format", required=True)
      if group == "queued-resources" and verb != "describe":
        parser.add_argument("--async", action="store_true")
      if group == "queued-resources" and verb == "create":
        parser.add_argument("--node-id", required=True)
      if group == "queued-resources" and verb == "delete":
        parser.add_argument("--force", action="store_true")


def add_workers(command):
  parser = command((*TPUS, "tpu-vm", "ssh"), ssh)
  parser.add_argument("name")
  parser.add_argument("--worker", default="0")
  parser.add_argument("--command", required=True)
  parser.add_argument("--internal-ip", action="store_true")
  parser = command((*TPUS, "tpu-vm", "scp"), scp)
  parser.add_argument("paths", nargs="+")
  parser.add_argument("--worker", default="0")
  parser.add_argument("--internal-ip", action="store_true")


def add_others(command):
  parser = command(("compute", "disks", "describe"), disk_describe)
  parser.add_argument("name")
  parser.add_argument("--format", required=True)
  parser = command(("compute", "instances", "list"), instances_list)
  for name in ("flatten", "filter", "format"):
    parser.add_argument(f"--{name}", required=True)
  parser = command(("storage", "ls"), storage_ls)
  parser.add_argument("--long", action="store_true")
  parser.add_argument("paths", nargs="+")
  parser = command(("storage", "cp"), storage_cp)
  parser.add_argument("--quiet", action="store_true")
  parser.add_argument("source")
  parser.add_argument("target")
  parser = command(("storage", "cat"), storage_cat)
  parser.add_argument("path")
  parser = command(("storage", "buckets", "describe"), storage_describe)
  parser.add_argument("bucket")
  parser.add_argument("--format", required=True)
  parser = command(("projects", "describe"), project_describe)
  parser.add_argument("project")
  parser.add_argument("--format", required=True)
  parser = command(("projects", "get-iam-policy"), project_policy)
  parser.add_argument("project")
  parser.add_argument("--flatten", required=True)
  parser.add_argument("--format", required=True)
  parser = command(("config", "get-value"), print_property)
  parser.add_argument("property", choices=["project"])
