"""Whether the images fit where --stage copies them, before there is a slice."""

from __future__ import annotations

import re

from launch.controller import slices
from launch.controller.calls import Console
from launch.controller.ending import Ended
from launch.controller.settings import Settings

_SECONDS = 300
# "Each Cloud TPU VM has a single 100 GiB boot disk ... You can't resize" it:
# docs.cloud.google.com/tpu/docs/storage-options. The system takes some of it.
_BOOT_DISK = 100 * 2**30
# What somebody has mounted, whose size only a worker knows.
_MOUNTS = ("/mnt/", "/media/", "/dev/", "/run/")


def check(chosen: Settings, console: Console) -> None:
  """Compares the training split's shards in a bucket with the room of a host.

  Those are the least that each host copies, see input_pipeline/staging.py. What
  is not known is said.

  Raises:
    Ended: they cannot fit.
  """
  stage = chosen.asked.values.get("stage", "")
  data = chosen.asked.values.get("data", "")
  if not stage or not data.startswith("gs://"):
    return
  name, split = chosen.dataset
  if not name:
    console.say(
      f"How much is copied to {stage} is not known, because the config was not "
      "checked."
    )
    return
  # TFDS's names: NAME/CONFIG:VERSION, of which the last two may be absent.
  folder = f"{data}/{name.replace(':', '/')}"
  words = ("gcloud", "storage", "ls", "--long", f"{folder}/**")
  answer = console.run(words, _SECONDS)
  if console.dry_run:
    return
  wanted = bytes_of(answer.out, split) if "[" not in split else 0
  room, where = room_of(stage, chosen.slice)
  if answer.status or not wanted:
    why = answer.last_error or f"no shard there is named after {split}"
    console.say(
      f"How much of {folder} is copied to {stage} is not known: {why}"
    )
    return
  copied = f"at least {wanted / 1e9:,.1f} GB of {folder}"
  if room is None:
    console.say(
      f"Each host copies {copied} to {stage}; whether that fits is not known: "
      f"`df -h {stage}` tells on a worker."
    )
  elif wanted > room:
    raise Ended(
      2,
      f"{stage} cannot hold {copied}, which each host copies: {where} has "
      f"{room / 1e9:,.1f} GB. Give --stage another folder, or leave it out.",
    )
  else:
    console.say(
      f"Each host copies {copied} to {stage}; {where} has {room / 1e9:,.1f} GB."
    )


def room_of(stage: str, slice_: str) -> tuple[int | None, str]:
  """(most bytes for a folder on a host, what gives them); None if unknown."""
  if f"{stage}/".startswith("/dev/shm/"):
    memory = slices.host_memory(slice_)
    half = None if memory is None else memory // 2  # man page tmpfs(5)
    return half, f"/dev/shm, half the memory of a {slice_} host,"
  if stage.startswith(_MOUNTS):
    return None, ""
  return _BOOT_DISK, "the boot disk"


def bytes_of(listing: str, split: str) -> int:
  """Bytes of the shards of a split in its newest version.

  Args:
    listing: what `gcloud storage ls --long` prints: size, time, URL.
    split: its name, such as "train".
  """
  shard = re.compile(rf"[^/]*-{re.escape(split)}\.[^/]*-\d{{5,}}-of-\d{{5,}}")
  sizes: dict[tuple[int, ...], int] = {}
  for line in listing.splitlines():
    fields = line.split(maxsplit=2)
    folder, _, file = fields[-1].rpartition("/") if fields else ("", "", "")
    version = folder.rpartition("/")[2]
    known = re.fullmatch(r"\d+\.\d+\.\d+", version) and fields[0].isdigit()
    if known and shard.fullmatch(file):
      key = tuple(map(int, version.split(".")))
      sizes[key] = sizes.get(key, 0) + int(fields[0])
  return sizes[max(sizes)] if sizes else 0
