"""launch/worker.sh, run in bash on fake workers."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

from tests import processes
from tests.fake_cloud.rig import CONTROLLER, FAKE, git
from tests.fake_cloud.workers import (
  on_worker,
  setup_line,
  start_line,
  start_workers,
  state_of,
  wait_for_deletion,
  wait_for_state,
  wait_for_trainer,
  wait_until,
)

pytest_plugins = ("tests.fake_cloud.fixtures",)
# Each test starts dozens of programs.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
  "awkward", ["a b", "it's", '"$HOME" %n `id`', "a\\nb;*"]
)
def test_awkward_arguments_reach_the_trainer_whole(rig, awkward):
  rig.plan(workers=2, python=str(FAKE / "trainer"))
  folder = f"{rig.folder}/{awkward}"
  data = rig.folder / f"data {awkward}"
  data.mkdir()
  override = f"--config.data.name=folder:/{awkward}"
  rig.run(
    *("byol_r50x1:epochs=100", "--slice=v3-32", "--name=my-run"),
    *("--workdir", folder, "--data", str(data), override),
    *("--delete=never", "--yes"),
  )
  for worker in (0, 1):
    (call,) = rig.trainer_calls(worker)
    assert call["argv"] == [
      *("-m", "byol_flax.main", "train"),
      "--config=configs/byol_r50x1.py:epochs=100",
      f"--workdir={folder}",
      f"--config.loader.data_dir={data}",
      override,
    ]
    cache = call["environment"]["JAX_COMPILATION_CACHE_DIR"]
    assert cache == f"{folder}/compilation_cache"


def test_the_commit_runs_and_names_itself(rig):
  rig.plan(workers=1, python=str(FAKE / "trainer"))
  rig.run(*CONTROLLER)
  commit = git(rig.repository, "rev-parse", "HEAD")
  (call,) = rig.trainer_calls(0)
  assert call["cwd"] == str(rig.worker(0) / f"byol/code-{commit}")
  assert pathlib.Path(call["cwd"], "COMMIT").read_text() == commit
  assert (
    f"commit {commit}\na line" in (rig.worker(0) / "byol/run/log").read_text()
  )


def test_packages_are_installed_once_until_they_change(rig):
  start_workers(rig, {})
  log = rig.worker(0) / "uv.log"
  assert [line.split()[0] for line in log.read_text().splitlines()] == [
    "venv",
    "pip",
  ]
  on_worker(rig, 0, setup_line())
  assert len(log.read_text().splitlines()) == 2
  with open(rig.worker(0) / "byol/current/constraints.txt", "a") as file:
    file.write("more\n")
  on_worker(rig, 0, setup_line())
  assert len(log.read_text().splitlines()) == 4


def test_a_set_up_that_failed_is_begun_again(rig):
  rig.plan(workers=2, setup=[[1]], python=str(FAKE / "trainer"))
  result = rig.run(*CONTROLLER)
  error = "t1v-n-fake-w-1: error: no space left on device"
  assert result.stderr.count(error) == 1
  assert [len(rig.trainer_calls(i)) for i in (0, 1)] == [1, 1]


@pytest.mark.parametrize("code", [0, 1, 2, 75, 134])
def test_the_exit_code_survives(rig, code):
  start_workers(rig, {"TRAINER": f"exit {code}"})
  assert state_of(rig, 0) == ("absent", "-")
  on_worker(rig, 0, start_line(rig, "id1"))
  assert wait_for_state(rig, 0, "exited") == str(code)


def test_a_killed_trainer_is_told_from_one_that_saved(rig):
  start_workers(rig, {"TRAINER": "wait"})
  for signal_number, code in ((signal.SIGKILL, "137"), (signal.SIGTERM, "75")):
    on_worker(rig, 0, start_line(rig, "id1"))
    wait_for_trainer(rig)
    # Straight to the main process of the unit: it is the trainer itself.
    pid = int((rig.worker(0) / "unit/pid").read_text())
    assert rig.trainer_calls(0)[-1]["pid"] == pid
    os.kill(pid, signal_number)
    assert wait_for_state(rig, 0, "exited") == code


def test_start_and_stop_may_be_repeated(rig):
  start_workers(rig, {"TRAINER": "wait"})
  assert state_of(rig, 0) == ("absent", "-")
  on_worker(rig, 0, start_line(rig, "id1"))
  wait_for_trainer(rig)
  on_worker(rig, 0, start_line(rig, "id1"))
  assert len(rig.trainer_calls(0)) == 1
  refusal = on_worker(rig, 0, start_line(rig, "id2"), status=1)
  assert "Another run is going on here" in refusal
  on_worker(rig, 0, "stop")
  on_worker(rig, 0, "stop")
  assert state_of(rig, 0) == ("stopped", "75")
  on_worker(rig, 0, "check p gs://bucket/run -")
  on_worker(rig, 0, start_line(rig, "id2"))
  assert state_of(rig, 0) == ("running", "-")
  wait_for_trainer(rig)
  on_worker(rig, 0, "halt")
  assert state_of(rig, 0) == ("exited", "75")


def test_a_stop_is_not_undone_by_a_start_that_was_on_its_way(rig):
  start_workers(rig, {"TRAINER": "wait"})
  # A tending that begins late would look as if another run was prepared.
  os.killpg(int((rig.worker(0) / "tend.pid").read_text()), signal.SIGKILL)
  on_worker(rig, 0, "check p gs://bucket/run -")
  on_worker(rig, 0, "stop")  # before there was a run
  assert state_of(rig, 0) == ("stopped", "-")
  on_worker(rig, 0, start_line(rig, "id1"))
  assert state_of(rig, 0) == ("stopped", "-")
  assert not (rig.worker(0) / "trainer.jsonl").exists()
  on_worker(rig, 0, "check p gs://bucket/run -")  # of another command
  on_worker(rig, 0, start_line(rig, "id1"))
  assert state_of(rig, 0) == ("running", "-")


def test_a_set_up_changes_nothing_under_a_run(rig):
  start_workers(rig, {"TRAINER": "wait"})
  home = rig.worker(0) / "byol"
  on_worker(rig, 0, start_line(rig, "id1"))
  wait_for_trainer(rig)
  before = (home / "run/tend").read_text()
  # As `up` of a commit with other packages.
  commit = (home / "current/COMMIT").read_text()
  shutil.copytree(home / "current", home / "code-other")
  (home / "code-other/constraints.txt").write_text("others\n")
  (home / "current").unlink()
  (home / "current").symlink_to("code-other")
  (home / "venv/mine").touch()
  text = on_worker(rig, 0, setup_line("gs://bucket/other", "always", "1"))
  assert "A run goes on here, so nothing is changed." in text
  assert (home / "venv/mine").exists()
  assert (home / "run/tend").read_text() == before
  unit = (home / "byol-tend.service").read_text()
  assert f"ExecStart=/bin/bash {home}/code-{commit}/launch/worker.sh" in unit


def test_a_machine_that_went_down_lost_its_run(rig):
  start_workers(rig, {})
  on_worker(rig, 0, start_line(rig, "id1"))
  wait_for_state(rig, 0, "exited")
  (rig.worker(0) / "byol/run/exit").unlink()  # as if never written
  assert state_of(rig, 0) == ("lost", "-")


@contextlib.contextmanager
def holder(rig, name):
  """A process that holds the TPU of worker 0."""
  with subprocess.Popen(["bash", "-c", f"exec -a {name} sleep 600"]) as other:
    try:
      wait_until(lambda: processes.command(other.pid).startswith(name))
      (rig.worker(0) / "holders").write_text(f"{other.pid}\n")
      yield other
    finally:
      other.kill()


def test_the_tpu_is_taken_from_our_own_leftovers_only(rig):
  devices = rig.folder / "accel0"
  devices.touch()
  start_workers(rig, {"BYOL_DEVICES": f"{rig.folder}/accel* /none*"})
  check = "check p gs://bucket/run -"
  with holder(rig, "byol_flax.main") as other:
    on_worker(rig, 0, start_line(rig, "id1"))
    assert other.wait() == -signal.SIGKILL
  wait_for_state(rig, 0, "exited")
  with holder(rig, "byol-check") as other:
    assert "byol-check t1v-n-fake-w-0 ok 4\n" in on_worker(rig, 0, check)
    assert other.wait() == -signal.SIGKILL
  with holder(rig, "notebook") as other:
    told = f"Process {other.pid} (notebook 600) holds the TPU; end it first.\n"
    assert told in on_worker(rig, 0, start_line(rig, "id1"), status=1)
    text = on_worker(rig, 0, check)
    assert f"byol-check t1v-n-fake-w-0 held {told}" in text
    assert other.poll() is None


def test_a_check_leaves_a_run_alone(rig):
  devices = rig.folder / "accel0"
  devices.touch()
  start_workers(rig, {"BYOL_DEVICES": str(devices), "TRAINER": "wait"})
  on_worker(rig, 0, start_line(rig, "id1"))
  wait_for_trainer(rig)
  pid = rig.trainer_calls(0)[-1]["pid"]
  (rig.worker(0) / "holders").write_text(f"{pid}\n")
  text = on_worker(rig, 0, "check p gs://bucket/run -")
  said = "held A run that goes on already holds the TPU.\n"
  assert f"byol-check t1v-n-fake-w-0 {said}" in text
  assert state_of(rig, 0) == ("running", "-")


def test_logs_and_states_name_the_worker(rig):
  start_workers(rig, {}, {})
  assert "t1v-n-fake-w-0: no log yet" in on_worker(rig, "all", "logs 5")
  on_worker(rig, "all", start_line(rig, "id1"))
  wait_for_state(rig, 1, "exited")
  assert "t1v-n-fake-w-1: a line of the trainer" in on_worker(rig, 1, "logs 5")


def test_goodput_is_asked_about_the_workdir_of_the_run(rig):
  start_workers(rig, {})
  assert "No run was started here." in on_worker(rig, 0, "goodput", status=1)
  on_worker(rig, 0, start_line(rig, "id1"))
  wait_for_state(rig, 0, "exited")
  on_worker(rig, 0, "goodput")
  call = rig.trainer_calls(0)[-1]
  workdir = f"--workdir={rig.folder}/run"
  assert call["argv"] == ["-m", "byol_flax.main", "goodput", workdir]
  assert call["cwd"] == str((rig.worker(0) / "byol/current").resolve())


# --- what a worker does beside the run ----------------------------------------


def test_the_log_of_an_attempt_is_in_the_workdir_before_its_exit_code(rig):
  start_workers(rig, {}, {})
  on_worker(rig, "all", start_line(rig, "id1"))
  for worker in (0, 1):
    wait_for_state(rig, worker, "exited")
    kept = rig.folder / f"run/logs/20260102-030405/worker-{worker}.log"
    assert kept.read_text().endswith("a line of the trainer\n")
  words = on_worker(rig, 0, "state").splitlines()[0].split()
  assert words[-2:] == ["20260102-030405", "-"]


def test_the_log_is_kept_in_a_bucket_while_the_run_goes_on(rig):
  start_workers(rig, {"TRAINER": "wait", "BYOL_TEND_SECONDS": "0.1"})
  line = start_line(rig, "id1").replace(f"{rig.folder}/run", "gs://bucket/run")
  on_worker(rig, 0, line)
  kept = rig.folder / "bucket/bucket/run/logs/20260102-030405/worker-0.log"
  wait_until(lambda: kept.exists() and "a line of the" in kept.read_text())
  assert state_of(rig, 0)[0] == "running"


TEND = {"BYOL_TEND_SECONDS": "0.1", "BYOL_GRACE_SECONDS": "1"}


@pytest.mark.parametrize(
  ("trainer", "delete", "why"),
  [
    ("exit 0", "done", "done"),
    ("exit 1", "always", "ended"),
    ("wait", "done", "hours"),
  ],
)
def test_worker_0_deletes_the_slice(rig, trainer, delete, why):
  start_workers(rig, {"TRAINER": trainer, **TEND}, {"TRAINER": "wait", **TEND})
  on_worker(rig, "all", start_line(rig, "id1", delete))
  if trainer == "wait":
    # Its hours end only now, so that it has its handler of SIGTERM by then.
    wait_for_trainer(rig)
    on_worker(rig, 0, f"retend {delete} 1")
  url = "https://tpu.googleapis.com/v2/projects/p/locations/z/nodes/n\n"
  assert wait_for_deletion(rig) == url
  token = "Authorization: Bearer secret-token\n"
  assert (rig.folder / "authorization").read_text().endswith(token)
  told = rig.folder / "run/logs/20260102-030405/deleted.txt"
  assert told.read_text() == f"{why}\n"
  if trainer == "wait":  # it saved before
    assert (rig.worker(0) / "byol/run/exit").read_text() == "75"


@pytest.mark.parametrize(
  ("trainer", "delete"), [("exit 1", "done"), ("exit 0", "never")]
)
def test_worker_0_leaves_a_slice_that_is_needed(rig, trainer, delete):
  start_workers(rig, {"TRAINER": trainer, **TEND, "BYOL_GRACE_SECONDS": "0"})
  on_worker(rig, 0, start_line(rig, "id1", delete))
  wait_for_state(rig, 0, "exited")
  time.sleep(1)
  assert not (rig.folder / "deletions").exists()


def test_a_queue_is_deleted_with_its_node(rig):
  start_workers(rig, {"TRAINER": "exit 0", **TEND})
  line = start_line(rig, "id1", "done").replace("/nodes/", "/queuedResources/")
  on_worker(rig, 0, line)
  assert wait_for_deletion(rig).endswith("/n?force=true\n")


def test_a_process_killed_for_memory_is_no_preemption(rig):
  start_workers(rig, {"TRAINER": "exit 75"})
  (rig.worker(0) / "oom").touch()  # what systemd then says, see systemd-run
  on_worker(rig, 0, start_line(rig, "id1"))
  assert wait_for_state(rig, 0, "exited") == "137"


def test_a_worker_without_chips_says_so(rig):
  start_workers(rig, {}, {"CHIPS": ""})
  text = on_worker(rig, "all", "check my-project gs://bucket/run -")
  assert "byol-check t1v-n-fake-w-0 ok 4\n" in text
  assert "byol-folder" not in text
  assert "byol-check t1v-n-fake-w-1 failed no TPU\n" in text
  assert text.count("byol-may t1v-n-fake-w-0 yes\n") == 1


def test_the_newest_checkpoint_is_the_largest_number(rig):
  start_workers(rig, {})
  line = f"newest {rig.folder}/run"
  assert on_worker(rig, 0, line).startswith("byol-newest t1v-n-fake-w-0 -1\n")
  for name in ("8", "16", "9", "24.orbax-checkpoint-tmp"):
    (rig.folder / "run/checkpoints" / name).mkdir(parents=True)
  assert on_worker(rig, 0, line).startswith("byol-newest t1v-n-fake-w-0 16\n")
