"""launch/files.sh: files of a workdir on storage that fails."""

import os
import subprocess

import pytest

from tests.fake_cloud.rig import PATIENCE, ROOT
from tests.fake_cloud.workers import (
  on_worker,
  start_line,
  start_workers,
  wait_for_trainer,
  wait_until,
)

pytest_plugins = ("tests.fake_cloud.fixtures",)

# With a fourth argument, a file, what is written ends after the writing.
PUT = """set -euo pipefail
host=h
source "$1"
put() {
  local status=0
  put_file "$1" "$2" || status=$?
  if [[ -n "$3" ]]; then : >"$3"; fi
  return "${status}"
}
come() {
  printf 'a new file'
  if [[ -n "$1" ]]; then until [[ -e "$1" ]]; do sleep 0.1; done; fi
}
if come "${4:-}" | put "$2" "$3" "${4:-}"; then
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
  ended = how in ("slow", "hung")
  words = ["bash", "-c", PUT, "put", str(ROOT / "launch/files.sh")]
  words += [str(target), "0.3" if ended else "60"]
  result = subprocess.run(
    [*words, str(tmp_path / "over")] if how == "slow" else words,
    capture_output=True,
    text=True,
    timeout=PATIENCE,
    check=False,
  )
  good = how == "good"
  assert result.stdout == ("put\n" if good else ""), result.stderr
  kept = tmp_path / "run/logs/worker-0.log"
  assert kept.read_text() == ("a new file" if good else "the old file")
  # Half a file has another name, which the next one takes.
  assert ended or os.listdir(kept.parent) == ["worker-0.log"]


@pytest.mark.slow
def test_storage_that_hangs_does_not_keep_the_slice(rig):
  tend = {"BYOL_TEND_SECONDS": "0.1", "BYOL_FILE_SECONDS": "0.5"}
  start_workers(rig, {"TRAINER": "wait", **tend})
  logs = rig.folder / "run/logs/20260102-030405"
  logs.mkdir(parents=True)
  for name in ("worker-0.log", "deleted.txt"):
    os.mkfifo(logs / f"{name}.part.t1v-n-fake-w-0")
  on_worker(rig, 0, start_line(rig, "id1", "done"))
  wait_for_trainer(rig)  # which hears SIGTERM by then
  on_worker(rig, 0, "retend done 1")
  wait_until((rig.folder / "deletions").exists)
  assert (rig.worker(0) / "byol/run/exit").read_text() == "75"
