"""launch/check.sh: the folders of a run on the workers."""

import shlex

import pytest

from tests.fake_cloud.rig import CONTROLLER
from tests.fake_cloud.workers import (
  on_worker,
  start_line,
  start_workers,
  wait_for_state,
)

pytest_plugins = ("tests.fake_cloud.fixtures",)


def test_a_worker_says_which_folder_it_cannot_use(rig):
  start_workers(rig, {})
  file, run = rig.folder / "file", rig.folder / "a run"
  file.touch()
  quoted = shlex.quote(str(run))
  assert "byol-folder" not in on_worker(
    rig, 0, f"check p {quoted} {run.parent}"
  )
  assert [path.name for path in run.iterdir()] == [".check.worker-0"]
  text = on_worker(rig, 0, f"check p {file}/run {rig.folder}/data")
  lines = [x for x in text.splitlines() if x.startswith("byol-folder ")]
  assert len(lines) == 2
  host = "byol-folder t1v-n-fake-w-0 cannot"
  assert lines[0].startswith(f"{host} write to the workdir {file}/run: ")
  assert "Not a directory" in lines[0]
  assert lines[1].startswith(f"{host} read the data in {rig.folder}/data: ")
  assert "byol-check t1v-n-fake-w-0 ok 4\n" in text


def test_a_workdir_that_goes_with_the_slice_is_refused(rig):
  start_workers(rig, {})
  run = rig.folder / "run"
  own = rig.worker(0) / "own"
  check = f"check p {run} {rig.folder}"
  for device, words in (
    ("tmpfs", "in its own memory or on its own disk"),
    ("/dev/sda1", "in its own memory or on its own disk"),
    ("/dev/sdb1", ""),
  ):
    own.write_text(f"{device} {run}\n")
    text = on_worker(rig, 0, check)
    told = f"byol-folder t1v-n-fake-w-0 has {run} {words}"
    assert (told in text) == bool(words), device
  # The data may lie on each worker's own disk.
  own.write_text(f"/dev/sda1 {rig.folder}/data\n")
  (rig.folder / "data").mkdir()
  assert "byol-folder" not in on_worker(rig, 0, f"{check}/data")


@pytest.mark.slow
def test_a_run_whose_results_would_go_with_the_slice_ends(rig):
  start_workers(rig, {})
  run = rig.folder / "run"
  (rig.worker(0) / "own").write_text(f"/dev/sda1 {run}\n")
  words = [word for word in CONTROLLER if "workdir" not in word]
  result = rig.run(*words, "--workdir", str(run), status=2)
  assert "which are deleted with the slice." in result.stderr
  assert not (rig.worker(0) / "trainer.jsonl").exists()


@pytest.mark.slow
def test_a_workdir_must_be_one_for_all_workers(rig):
  # So long the last check waits; the first must not take longer.
  start_workers(rig, *[{"BYOL_FILE_SECONDS": "8"}] * 2)
  text = on_worker(rig, "all", f"check p {rig.folder}/run -")
  assert "byol-folder" not in text
  token = rig.folder / "run/.check.worker-0"
  assert token.exists()
  on_worker(rig, "all", start_line(rig, "id1"))
  assert not token.exists()
  wait_for_state(rig, 1, "exited")
  # As if worker 0 had written to another folder of that path.
  text = on_worker(rig, 1, f"check p {rig.folder}/run -")
  told = f"does not see what worker 0 has written to {rig.folder}/run\n"
  assert f"byol-folder t1v-n-fake-w-1 {told}" in text
