"""The disk of --data-disk: how it is attached, and what is checked before."""

from __future__ import annotations

import re

from launch.controller import slices
from launch.controller.calls import Answer, Console
from launch.controller.ending import Ended
from launch.controller.settings import Settings

_SECONDS = 120
# Columns of the describe; gcloud writes tabs between them. The words are those
# of `Disk` in googlecloudsdk/generated_clients/apis/compute/v1 of SDK 528.
_FORMAT = "value(status,type.basename(),accessMode)"
_LINE = re.compile(r"([A-Z]+)\t([a-z0-9-]+)\t([A-Z_]*)")
# What each generation takes, by the beginning of the type's name; the others
# take both (Google's pages docs.cloud.google.com/tpu/docs/
# attach-durable-block-storage and /storage-options-compute).
_TYPES = {"v2": "pd-", "v3": "pd-", "v4": "pd-", "v6e": "hyperdisk-"}


def name_of(chosen: Settings) -> str:
  """The name of the disk, "" if there is none."""
  return chosen.asked.values.get("data-disk", "")


def flags(chosen: Settings) -> tuple[str, ...]:
  """What `gcloud compute tpus ... create` gets for it.

  Only read-only can all workers of a slice have one disk.
  """
  name = name_of(chosen)
  if not name:
    return ()
  where = f"projects/{chosen.project}/zones/{chosen.zone}"
  return (f"--data-disk=source={where}/disks/{name},mode=read-only",)


def check(chosen: Settings, console: Console) -> None:
  """Checks that the slice can have the disk.

  Raises:
    Ended: with one sentence on what is wrong.
  """
  name, zone = name_of(chosen), chosen.zone
  if not name:
    return
  where = f"--project={chosen.project}"
  disks = ("gcloud", "compute", "disks", "describe", name, where)
  answer = console.run(
    (*disks, f"--zone={zone}", f"--format={_FORMAT}"), _SECONDS
  )
  # What `users` of a disk names does not tell how they have it.
  listing = ("gcloud", "compute", "instances", "list", where, f"--zones={zone}")
  condition = f"disks.source ~ /disks/{name}$ AND disks.mode = READ_WRITE"
  flat = ("--flatten=disks[]", f"--filter={condition}", "--format=value(name)")
  users = console.run((*listing, *flat), _SECONDS)
  if console.dry_run:
    return
  if answer.error_matches("not found|404"):
    raise Ended(
      2,
      f"There is no disk {name} in {zone}, where the slice is to be: "
      f"{answer.last_error}",
    )
  for asked in (answer, users):
    if asked.status:
      # To use a disk one need not be allowed to ask about it.
      console.say(
        f"How the disk {name} is cannot be found out: {asked.last_error}"
      )
  found = [_LINE.fullmatch(line) for line in answer.out.splitlines()]
  for line in filter(None, found):
    _check_state(chosen, *line.groups())
  writers = re.findall(r"^[a-z][-a-z0-9]*$", users.out, re.MULTILINE)
  if writers:
    raise Ended(
      2,
      f"The disk {name} is attached for writing to {writers[0]}; first: gcloud "
      f"compute instances detach-disk {writers[0]} --disk={name} {where} "
      f"--zone={zone}",
    )


def _check_state(chosen: Settings, status: str, type_: str, mode: str) -> None:
  name, generation = name_of(chosen), slices.generation(chosen.slice)
  if status != "READY":
    raise Ended(2, f"The disk {name} is {status}; it must be READY.")
  takes = _TYPES.get(generation, "")
  if not type_.startswith(takes):
    raise Ended(
      2,
      f"The disk {name} is a {type_}; {chosen.slice} takes only types that "
      f"begin with {takes}.",
    )
  # Another mode lets one machine have it; other types know no modes.
  if type_.startswith("hyperdisk-") and mode != "READ_ONLY_MANY":
    raise Ended(
      2,
      f"The disk {name} has the access mode {mode or 'READ_WRITE_SINGLE'}; "
      f"first: gcloud compute disks update {name} --project={chosen.project} "
      f"--zone={chosen.zone} --access-mode=READ_ONLY_MANY",
    )


def failures(answer: Answer) -> list[str]:
  """A sentence for each worker on which it could not be mounted.

  Reads the lines of `worker.sh disk`, see disk in data_disk.sh.
  """
  lines = [line.split(maxsplit=3) for line in answer.out.splitlines()]
  said = [line for line in lines if line[:1] == ["byol-disk"]]
  return sorted(f"{x[1]}: {x[3]}" for x in said if x[2:3] == ["failed"])
