"""Says what training wants of the storage of its images, and who gives that."""

import dataclasses
import math
from typing import Any

import numpy as np

from byol_flax.runs.progress_line import human_duration
from byol_flax.slices import Slice
from input_pipeline import paths, sources

# Requests that read objects: so many a second are answered at first, and a
# client may ask for twice as many every 20 minutes (Google's page
# cloud.google.com/storage/docs/request-rate).
_BUCKET_READS = 5_000
_DOUBLING_SECONDS = 20 * 60
# Bytes a second in which a host copies from a bucket. An assumption: v5e hosts
# have 200 Gbit/s (cloud.google.com/tpu/docs/v5e), and all share the project's
# quota of bandwidth.
_COPIES = 1e9
# GB of memory of a host, by its chips (the same page). /dev/shm has half of it
# unless somebody set another size (man page tmpfs(5)). Google's pages on the
# other generations do not tell.
_MEMORY = {"v5e": {1: 48, 4: 192, 8: 384}}

_SAMPLE = 64  # images whose bytes are counted


@dataclasses.dataclass(frozen=True)
class Files:
  """The encoded images that a training reads.

  Attributes:
    mean_bytes: of an image.
    count: of all images.
    in_shards: whether they lie in ArrayRecord files, which can be staged.
  """

  mean_bytes: float
  count: int
  in_shards: bool


@dataclasses.dataclass(frozen=True)
class Needs:
  """What a training wants of its storage, at most.

  Attributes:
    reads: of one image each, by each host in a second.
    bytes: by each host in a second.
    all_reads: by all hosts in a second.
    staged_bytes: of all images, which each host copies if it stages.
    staged_seconds: what that takes.
    shm_bytes: of /dev/shm on each host; None if unknown.
    remote_seconds: until a bucket answers so many requests; 0 at once.
    billed_reads: requests to a bucket in the whole run.
  """

  reads: float
  bytes: float
  all_reads: float
  staged_bytes: float
  staged_seconds: float
  shm_bytes: float | None
  remote_seconds: float
  billed_reads: int


def files_of(name: str, source: sources.Source, count: int) -> Files | None:
  """Looks at some images of `source`; None if they are not in files.

  Args:
    name: of the data set.
    source: its images, or some like them.
    count: how many the data set has.
  """
  sizes = []
  for i in np.unique(np.linspace(0, len(source) - 1, _SAMPLE).astype(int)):
    try:
      image = source[int(i)]["image"]
    except (OSError, RuntimeError):  # a damaged one does not count
      continue
    if isinstance(image, bytes):
      sizes.append(len(image))
  if not sizes:
    return None
  in_shards = name.partition(":")[0] not in paths.FOLDERS
  return Files(float(np.mean(sizes)), count, in_shards)


def needs(
  files: Files, slice_: Slice, images_per_host_second: float, images: int
) -> Needs:
  """Multiplies.

  Args:
    files: what is read.
    slice_: by the hosts of which slice.
    images_per_host_second: that each host wants at most.
    images: that the whole run reads.
  """
  all_reads = images_per_host_second * slice_.hosts
  doublings = math.ceil(math.log2(max(1.0, all_reads / _BUCKET_READS)))
  whole = files.mean_bytes * files.count
  memory = _MEMORY.get(slice_.generation, {}).get(slice_.chips // slice_.hosts)
  return Needs(
    reads=images_per_host_second,
    bytes=images_per_host_second * files.mean_bytes,
    all_reads=all_reads,
    staged_bytes=whole,
    staged_seconds=whole / _COPIES,
    shm_bytes=None if memory is None else memory * 1e9 / 2,
    remote_seconds=doublings * _DOUBLING_SECONDS,
    billed_reads=images,
  )


def words(files: Files, found: Needs, slice_: Slice) -> list[str]:
  """Lines for people."""
  lines = [
    f"storage    at most {found.bytes / 1e6:,.0f} MB/s in {found.reads:,.0f} "
    f"reads/s wanted of each host, at {files.mean_bytes / 1e3:,.0f} KB an image"
  ]
  if not files.in_shards:
    return [*lines, "  local    enough if the disk gives that in random reads"]
  return [
    *lines,
    "  local    enough if each host's disk gives that in random reads",
    f"  staged   {_staged_words(found)}",
    f"  remote   {_remote_words(found, slice_)}",
  ]


def _staged_words(found: Needs) -> str:
  """What `loader.stage_dir` would do."""
  size = f"{found.staged_bytes / 1e9:,.1f} GB"
  takes = human_duration(found.staged_seconds)
  text = (
    f"enough from memory, as loader.stage_dir=/dev/shm/byol: each host copies "
    f"all {size} first, in {takes} if it gets {_COPIES / 1e9:g} GB/s (assumed)"
  )
  if found.shm_bytes is None:
    return f"{text}; whether that fits, `df -h /dev/shm` tells on a worker"
  room = f"{found.shm_bytes / 1e9:,.0f} GB of /dev/shm, half the host's memory"
  if found.staged_bytes > found.shm_bytes:
    return f"DOES NOT FIT: {size} are more than the {room}; take a disk"
  return f"{text}; fits into the {room}"


def _remote_words(found: Needs, slice_: Slice) -> str:
  """What reading from a bucket would do."""
  asked = (
    f"{found.all_reads:,.0f} requests/s of {slice_.hosts} host(s), "
    f"{found.billed_reads:,} in all, which are billed; one an image at least"
  )
  if not found.remote_seconds:
    return (
      f"enough by requests: {asked}; a bucket answers about {_BUCKET_READS:,}/s"
    )
  later = human_duration(found.remote_seconds)
  return (
    f"TOO SLOW: {asked}; a bucket answers about {_BUCKET_READS:,}/s at first, "
    f"and so many after {later} at the earliest"
  )


def record(found: Needs | None) -> dict[str, Any]:
  """The numbers as a JSON object."""
  return {"storage": dataclasses.asdict(found) if found else None}
