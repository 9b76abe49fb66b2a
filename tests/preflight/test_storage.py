"""What training wants of its storage: arithmetic, and words."""

import numpy as np
import pytest

from byol_flax import slices
from byol_flax.preflight import storage
from input_pipeline.digits import DigitsSource
from input_pipeline.sources import open_source
from tests.input_pipeline.test_folders import make_folder

IMAGENET = storage.Files(mean_bytes=110e3, count=1_000_000, in_shards=True)


def asked(name, images_per_second, files=IMAGENET, images=10**9):
  slice_ = slices.find(name)
  found = storage.needs(files, slice_, images_per_second, images)
  return found, storage.words(files, found, slice_)


def test_needs_are_products():
  rng = np.random.default_rng(0)
  for name in ("v3-8", "v3-512", "v4-32", "v5litepod-16"):
    hosts = {"v3-8": 1, "v3-512": 64, "v4-32": 4, "v5litepod-16": 4}[name]
    rate = rng.uniform(10, 1e5)
    found, _ = asked(name, rate)
    assert found.bytes == pytest.approx(rate * 110e3)
    assert found.all_reads == pytest.approx(rate * hosts)
    assert found.staged_bytes == pytest.approx(110e9)
    minutes, answered = 0, 5000
    while answered < rate * hosts:
      minutes, answered = minutes + 20, 2 * answered
    assert found.remote_seconds == 60 * minutes


def test_who_gives_what_is_wanted_is_said():
  _, lines = asked("v3-512", 3437)
  assert lines[0] == (
    "storage    at most 378 MB/s in 3,437 reads/s wanted of each host, at "
    "110 KB an image"
  )
  assert lines[2].startswith("  staged   enough from memory")
  assert "all 110.0 GB first, in 1m 50s if it gets 1 GB/s (assumed)" in lines[2]
  assert lines[2].endswith("`df -h /dev/shm` tells on a worker")
  assert lines[3].startswith("  remote   TOO SLOW: 219,968 requests/s of 64")
  assert lines[3].endswith("and so many after 2h 00m at the earliest")
  _, lines = asked("v3-8", 5000)
  assert lines[3].startswith("  remote   enough by requests: 5,000 requests/s")


def test_memory_of_hosts_that_are_known_is_compared():
  _, (_, _, small, _) = asked("v5litepod-16", 100)
  assert small.startswith("  staged   DOES NOT FIT: 110.0 GB are more than the")
  _, (_, _, large, _) = asked("v5litepod-8", 100)
  assert large.endswith(
    "fits into the 192 GB of /dev/shm, half the host's memory"
  )


def test_files_are_looked_at(tmp_path):
  names = [f"train/a/{k}.png" for k in range(5)]
  folder = make_folder(tmp_path / "images", names)
  sizes = [(tmp_path / "images" / name).stat().st_size for name in names]
  found = storage.files_of(folder, open_source(folder, "train"), 7)
  assert found == storage.Files(np.mean(sizes), 7, in_shards=False)
  assert len(asked("v3-8", 10, found)[1]) == 2
  assert storage.files_of("digits", DigitsSource("train"), 7) is None
