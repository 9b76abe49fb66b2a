"""launch/check.sh: the folders of a run on the workers."""

import shlex

import pytest

from tests.fake_cloud.rig import CONTROLLER
from tests.fake_cloud.workers import (
  on_worker,
  set_environment,
  start_line,
  start_workers,
  wait_for_state,
)

pytest_plugins = ("tests.fake_cloud.fixtures",)


@pytest.mark.slow
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


@pytest.mark.slow
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


def bucket_of(rig, *names):
  """A bucket with some objects; returns its folder."""
  folder = rig.folder / "bucket/bucket"
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("an object")
  return folder


BUCKETS = "check p gs://bucket/run gs://bucket/tfds"
DENIED = "ERROR: HTTPError 403: byol@p does not have storage.objects access"


@pytest.mark.slow
@pytest.mark.parametrize(
  ("lines", "told"),
  [
    ([], []),
    (
      ["cp gs://bucket/run/"],
      [f"cannot write to the workdir gs://bucket/run: {DENIED}"],
    ),
    # Whoever may only create objects cannot replace a log.
    (
      ["rm gs://bucket/run/"],
      [f"cannot write to the workdir gs://bucket/run: {DENIED}"],
    ),
    (
      ["ls gs://bucket/tfds/"],
      [f"cannot read the data in gs://bucket/tfds: {DENIED}"],
    ),
    (
      ["cp gs://bucket/run/", "cat gs://bucket/tfds/"],
      [
        f"cannot write to the workdir gs://bucket/run: {DENIED}",
        f"cannot read the data in gs://bucket/tfds: {DENIED}",
      ],
    ),
  ],
)
def test_a_worker_tries_its_buckets_with_its_own_account(rig, lines, told):
  start_workers(rig, {}, {})
  folder = bucket_of(rig, "tfds/digits/1.0.0/a.array_record")
  denied = "".join(f"{line}\n" for line in lines)
  (rig.worker(1) / "denied").write_text(denied)
  text = on_worker(rig, "all", BUCKETS)
  said = [x for x in text.splitlines() if x.startswith("byol-folder")]
  assert said == [f"byol-folder t1v-n-fake-w-1 {sentence}" for sentence in told]
  assert text.count("byol-check ") == text.count(" ok 4\n") == 2
  left = [path.name for path in folder.rglob(".check.*")]
  assert left == ([".check.t1v-n-fake-w-1"] if denied[:2] == "rm" else [])


@pytest.mark.slow
def test_a_network_that_fails_once_ends_no_run(rig):
  start_workers(rig, {})
  bucket_of(rig, "tfds/digits/1.0.0/a.array_record")
  (rig.worker(0) / "flaky").touch()
  assert "byol-folder" not in on_worker(rig, 0, BUCKETS)
  assert not (rig.worker(0) / "flaky").exists()


@pytest.mark.slow
def test_a_bucket_that_does_not_answer_is_told_after_a_while(rig):
  start_workers(rig, {"BYOL_FILE_SECONDS": "8"})
  bucket_of(rig, "tfds/digits/1.0.0/a.array_record")
  (rig.worker(0) / "hanging").write_text("ls\n")
  text = on_worker(rig, 0, BUCKETS)
  told = "cannot read the data in gs://bucket/tfds: no answer within 8 s\n"
  assert f"byol-folder t1v-n-fake-w-0 {told}" in text
  assert "workdir" not in text


@pytest.mark.slow
def test_data_that_are_not_there_are_told(rig):
  start_workers(rig, {})
  bucket_of(rig, "run/logs/commit.txt")
  error = "ERROR: (gcloud.storage.ls) One or more URLs matched no objects."
  told = f"cannot read the data in gs://bucket/tfds: {error}\n"
  assert told in on_worker(rig, 0, BUCKETS)


@pytest.mark.slow
def test_the_role_that_a_worker_lacks_is_told_once(rig):
  rig.plan(shut=[[0, 1]])
  result = rig.run(*CONTROLLER, status=2)
  member = "serviceAccount:1234567890-compute@developer.gserviceaccount.com"
  grant = "gcloud storage buckets add-iam-policy-binding gs://bucket --member="
  role = "--role=roles/storage.objectAdmin"
  assert result.stderr.count(f"{grant}{member} {role}\n") == 1
  assert "--role=roles/storage.objectViewer" not in result.stderr


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
  start_workers(rig, {}, {})
  text = on_worker(rig, "all", f"check p {rig.folder}/run -")
  assert "byol-folder" not in text
  token = rig.folder / "run/.check.worker-0"
  assert token.exists()
  on_worker(rig, "all", start_line(rig, "id1"))
  assert not token.exists()
  wait_for_state(rig, 1, "exited")
  # As if worker 0 had written to another folder of that path.
  set_environment(rig, 1, BYOL_FILE_SECONDS="2")
  text = on_worker(rig, 1, f"check p {rig.folder}/run -")
  told = f"does not see what worker 0 has written to {rig.folder}/run\n"
  assert f"byol-folder t1v-n-fake-w-1 {told}" in text
