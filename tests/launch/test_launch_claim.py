"""launch/claim.sh: two slices do not run in one workdir of a bucket."""

import fcntl
import re
import subprocess
import time

import pytest

from launch.controller import claim
from tests.fake_cloud.rig import CONTROLLER, ROOT, START
from tests.fake_cloud.workers import (
  on_worker,
  setup_line,
  start_line,
  start_workers,
  wait_for_deletion,
  wait_for_state,
  wait_for_trainer,
  wait_until,
)

pytest_plugins = ("tests.fake_cloud.fixtures",)

NODE = "projects/my-project/locations/europe-west4-a/nodes/byol-digits"
OTHER = "projects/my-project/locations/us-east1-d/nodes/other"
# Not the workdir of the set-up, which a worker may claim at any moment.
MINE = "gs://bucket/mine"
CHECK = f"check p {MINE} -"
NOW = 1_800_000_000


def claim_of(rig):
  return rig.folder / "bucket/bucket/mine/logs/RUNNING"


def write_claim(rig, resource, age=0):
  path = claim_of(rig)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name("RUNNING.test")
  part.write_text(f"{resource} set-up {int(time.time()) - age}\n")
  with (rig.folder / "bucket.lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # as the fake gcloud of a worker does
    part.replace(path)


def words_of(rig):
  """The claim in the workdir, word for word; [] if there is none."""
  path = claim_of(rig)
  return path.read_text().split() if path.exists() else []


def start_in_bucket(rig, delete="never"):
  line = start_line(rig, "id1", delete)
  on_worker(rig, "all", line.replace(f"{rig.folder}/run", MINE))


@pytest.mark.parametrize(
  ("text", "age"),
  [
    (f"{OTHER} 20260102-030405 {NOW - 300}\n", 300),
    (f"{OTHER.replace('nodes', 'queuedResources')} set-up {NOW}\n", 0),
    (f"a notice\n{OTHER} set-up {NOW - 899}\na survey\n", 899),
    (f"{OTHER} set-up {NOW + 60}\n", 0),
    (f"{OTHER} set-up {NOW - 900}\n", None),
    (f"{OTHER} set-up {NOW + 900}\n", None),
    (f"{OTHER} set-up now\n", None),
    (f"{OTHER} {NOW}\n", None),
    ("other set-up 1\n", None),
    ("", None),
  ],
)
def test_a_claim_holds_for_a_quarter_of_an_hour(text, age):
  found = claim.read(text, NOW)
  slice_ = ("my-project", "us-east1-d", "other")
  assert found == (None if age is None else claim.Claim(slice_, age))


def test_controller_and_workers_wait_alike():
  text = (ROOT / "launch/claim.sh").read_text()
  seconds = re.search(r"^claim_seconds=(\d+)$", text, re.MULTILINE)[1]
  assert int(seconds) == claim.HOLDS_SECONDS


def test_a_workdir_of_another_slice_is_refused_before_a_creation(rig):
  rig.plan(claim=[OTHER, 300])
  result = rig.run(*CONTROLLER, status=2)
  assert rig.verbs == []
  stop = f"{rig.repository}/launch/tpu_vm.sh stop byol_digits --name=other"
  assert result.stderr.endswith(
    "tpu_vm.sh: The slice other in us-east1-d uses gs://bucket/run, as it "
    "said 5 min ago; two runs would destroy each other's checkpoints. Stop it "
    f"first ({stop} --project=my-project --zone=us-east1-d), or give another "
    "--workdir. If that slice is gone: gcloud storage rm "
    "gs://bucket/run/logs/RUNNING\n"
  )
  copied = [call for call in rig.calls if call[:2] == ["storage", "cp"]]
  assert copied == []  # nothing of ours is written there


@pytest.mark.slow
@pytest.mark.parametrize(
  "found",
  [
    [NODE, 60],
    [NODE.replace("nodes", "queuedResources"), 60],
    [OTHER, 1000],
    ["other", 0],
  ],
)
def test_a_claim_of_ours_or_of_the_past_is_no_matter(rig, found):
  rig.plan(claim=found)
  rig.run(*CONTROLLER)
  assert rig.verbs == ["create", *START]


@pytest.mark.slow
def test_a_run_claims_its_workdir_until_it_ends(rig):
  start_workers(rig, *[{"TRAINER": "wait", "BYOL_TEND_SECONDS": "0.1"}] * 2)
  start_in_bucket(rig)
  ours = ["projects/p/locations/z/nodes/n", "20260102-030405"]
  wait_until(lambda: words_of(rig)[:2] == ours)
  begun = int(words_of(rig)[2])
  assert abs(time.time() - begun) < 60
  wait_until(lambda: int(words_of(rig)[2]) > begun)
  wait_for_trainer(rig)
  on_worker(rig, 1, "stop")
  assert words_of(rig)  # the run goes on for worker 0
  on_worker(rig, 0, "stop")
  assert wait_for_state(rig, 0, "stopped") == "75"
  assert not words_of(rig)


@pytest.mark.slow
def test_a_run_in_a_folder_has_its_lock(rig):
  start_workers(rig, {"TRAINER": "wait", "BYOL_TEND_SECONDS": "0.1"})
  on_worker(rig, 0, start_line(rig, "id1"))
  kept = rig.folder / "run/logs"
  wait_until((kept / "20260102-030405/worker-0.log").exists)
  on_worker(rig, 0, "stop")
  assert not (kept / "RUNNING").exists()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["run", "set-up"])
def test_a_slice_gives_up_its_claim_before_it_deletes_itself(rig, what):
  start_workers(rig, {"TRAINER": "wait", "BYOL_TEND_SECONDS": "0.1"})
  lock = rig.worker(0) / "byol/setup.lock"
  if what == "run":
    start_in_bucket(rig, "done")
    wait_for_trainer(rig)
  else:
    on_worker(rig, 0, setup_line(MINE, "done"))
  # As while a set-up goes on.
  with subprocess.Popen(["flock", "-F", str(lock), "sleep", "600"]) as held:
    wait_until(lambda: words_of(rig))
    on_worker(rig, 0, "retend done 0")
    wait_for_deletion(rig)
    held.kill()
  assert not words_of(rig)


@pytest.mark.slow
def test_a_run_whose_workdir_another_slice_has_taken_ends_there(rig):
  start_workers(rig, {"TRAINER": "wait", "BYOL_TEND_SECONDS": "0.1"})
  start_in_bucket(rig)
  wait_for_trainer(rig)
  write_claim(rig, OTHER)
  before = words_of(rig)
  assert wait_for_state(rig, 0, "exited") == "2"  # it is not resumed
  said = (rig.worker(0) / "byol/run/log").read_text()
  assert f"this run was ended without a save: {OTHER} runs there.\n" in said
  assert words_of(rig) == before
  (rig.worker(0) / "byol/run/used").touch()
  write_claim(rig, OTHER, age=1000)  # the other is gone
  start_in_bucket(rig)
  wait_for_trainer(rig)
  on_worker(rig, 0, "stop")
  assert wait_for_state(rig, 0, "stopped") == "75"


@pytest.mark.slow
def test_a_check_claims_the_workdir_or_says_who_has(rig):
  start_workers(rig, {}, {})
  assert "byol-folder" not in on_worker(rig, "all", CHECK)
  assert words_of(rig)[:2] == [NODE, "set-up"]
  for age, held in ((0, True), (1000, False)):
    write_claim(rig, OTHER, age)
    text = on_worker(rig, "all", CHECK)
    told = f"cannot use the workdir {MINE}: {OTHER} runs there\n"
    assert "byol-folder" not in text
    assert text.count("byol-taken") == held
    assert (f"byol-taken t1v-n-fake-w-0 {told}" in text) == held
    assert (words_of(rig)[0] == NODE) == (not held)


@pytest.mark.slow
def test_a_claim_that_cannot_be_read_is_not_free(rig):
  start_workers(rig, {})
  write_claim(rig, OTHER)
  before = words_of(rig)
  denied = rig.worker(0) / "denied"
  denied.write_text(f"cp {MINE}/logs/RUNNING\n")
  text = on_worker(rig, 0, CHECK)
  told = (
    f"cannot claim the workdir {MINE} by logs/RUNNING: ERROR: HTTPError 403"
  )
  assert f"byol-folder t1v-n-fake-w-0 {told}" in text
  denied.unlink()
  (rig.worker(0) / "flaky").touch()  # a failure that passes
  assert f"{OTHER} runs there" in on_worker(rig, 0, CHECK)
  assert words_of(rig) == before


@pytest.mark.slow
def test_stop_gives_up_the_claim_of_a_set_up(rig):
  start_workers(rig, {})
  on_worker(rig, 0, setup_line(MINE))
  on_worker(rig, 0, CHECK)
  assert words_of(rig)
  on_worker(rig, 0, "stop")
  assert not words_of(rig)


@pytest.mark.slow
def test_a_set_up_for_another_workdir_leaves_that_of_the_run_before(rig):
  start_workers(rig, {"BYOL_TEND_SECONDS": "0.1"})
  start_in_bucket(rig)
  wait_for_state(rig, 0, "exited")
  wait_until(lambda: not words_of(rig))
  on_worker(rig, 0, setup_line("gs://bucket/other"))
  lock = rig.worker(0) / "byol/setup.lock"
  log = claim_of(rig).with_name("20260102-030405") / "worker-0.log"
  # As while a set-up goes on; what tending does with logs it does with claims.
  with subprocess.Popen(["flock", "-F", str(lock), "sleep", "600"]) as held:
    for _ in range(3):
      log.unlink(missing_ok=True)
      wait_until(log.exists)
    held.kill()
  assert not words_of(rig)


@pytest.mark.slow
def test_of_two_slices_that_find_it_free_one_gets_it(rig):
  start_workers(rig, {})
  claim_of(rig).parent.mkdir(parents=True)
  line = f'echo "{OTHER} set-up $(date +%s)" >"{claim_of(rig)}"\n'
  (rig.worker(0) / "meanwhile").write_text(line)
  text = on_worker(rig, 0, CHECK)
  told = f"cannot use the workdir {MINE}: {OTHER} runs there\n"
  assert f"byol-taken t1v-n-fake-w-0 {told}" in text
  assert words_of(rig)[0] == OTHER


@pytest.mark.slow
def test_what_another_slice_saves_there_is_no_progress_of_ours(rig):
  """It took the workdir while ours waited for capacity."""
  rig.plan(runs=[{"polls": 1, "node": "PREEMPTED"}], taken=[False, True])
  result = rig.run(*CONTROLLER, status=2)
  assert rig.verbs == ["create", *START, "delete", "create", *START[:-1]]
  assert "cannot use the workdir gs://bucket/run: projects/p" in result.stderr
  assert "Two runs would destroy each other's checkpoints." in result.stderr
