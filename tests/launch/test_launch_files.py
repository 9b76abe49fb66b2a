"""launch/files.sh: files of a workdir on storage that fails."""

import os
import subprocess

import pytest

from tests.fake_cloud.rig import ROOT
from tests.fake_cloud.workers import (
  on_worker,
  start_line,
  start_workers,
  wait_for_trainer,
  wait_until,
)

pytest_plugins = ("tests.fake_cloud.fixtures",)

PUT = """set -euo pipefail
host=h
source "$1"
if printf 'a new file' | { cat; sleep "$3"; } | put_file "$2" 0.3; then
  echo put
fi
"""


@pytest.mark.parametrize("how", ["good", "slow", "full", "hung", "no folder"])
def test_a_file_of_the_workdir_is_replaced_whole_or_not_at_all(tmp_path, how):
  target = tmp_path / "run/logs/worker-0.log"
  part = target.with_name("worker-0.log.part.h")
  target.parent.mkdir(parents=True)
  target.write_text("the old file")
  if how == "full":  # what the kernel says when a disk is full
    part.symlink_to("/dev/full")
  elif how == "hung":  # nobody reads: to open it takes for ever
    os.mkfifo(part)
  elif how == "no folder":
    target = target / "below-a-file.log"
  words = ["bash", "-c", PUT, "put", str(ROOT / "launch/files.sh")]
  result = subprocess.run(
    [*words, str(target), "0.6" if how == "slow" else "0"],
    capture_output=True,
    text=True,
    timeout=20,
    check=False,
  )
  good = how == "good"
  assert result.stdout == ("put\n" if good else ""), result.stderr
  kept = tmp_path / "run/logs/worker-0.log"
  assert kept.read_text() == ("a new file" if good else "the old file")
  # Half a file has another name, which the next one takes.
  ended = how in ("slow", "hung")
  assert ended or os.listdir(kept.parent) == ["worker-0.log"]


@pytest.mark.slow
def test_storage_that_hangs_does_not_keep_the_slice(rig):
  tend = {"BYOL_TEND_SECONDS": "0.1", "BYOL_FILE_SECONDS": "0.5"}
  start_workers(rig, {"TRAINER": "wait", **tend})
  logs = rig.folder / "run/logs/20260102-030405"
  logs.mkdir(parents=True)
  for name in ("worker-0.log", "deleted.txt"):
    os.mkfifo(logs / f"{name}.part.t1v-n-fake-w-0")
  on_worker(rig, 0, start_line(rig, "id1", "done", "2"))
  wait_for_trainer(rig)
  wait_until((rig.folder / "deletions").exists)
  assert (rig.worker(0) / "byol/run/exit").read_text() == "75"
