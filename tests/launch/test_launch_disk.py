"""--data-disk: a disk that all workers of a slice read."""

import signal

import pytest

from tests.fake_cloud.rig import CONTROLLER, PATIENCE, START, option, verb_of
from tests.fake_cloud.workers import on_worker, start_workers

pytest_plugins = ("tests.fake_cloud.fixtures",)
# Each test starts dozens of programs.
pytestmark = pytest.mark.slow

RUN = (*CONTROLLER, "--data-disk=images")
BALANCED = ["READY", "pd-balanced", ""]
SHARED = ["READY", "hyperdisk-ml", "READ_ONLY_MANY"]
SOURCE = "projects/my-project/zones/europe-west4-a/disks/images"
BEGIN = [*START[:3], "disk", *START[3:]]


@pytest.mark.parametrize("queue", [(), ("--queued",)])
def test_a_slice_gets_its_disk_at_its_creation_and_mounts_it(rig, queue):
  # A second attempt mounts it again, because the machine may be a new one.
  rig.plan(disks={"images": BALANCED}, runs=[{"polls": 0, "codes": [75, 75]}])
  rig.run(*RUN, *queue, "--data=/mnt/disks/data/it's")
  assert rig.verbs == ["create", *BEGIN, *BEGIN]
  create = next(call for call in rig.calls if verb_of(call) == "create")
  assert f"--data-disk=source={SOURCE},mode=read-only" in create
  mounts = [call for call in rig.calls if verb_of(call) == "disk"]
  for call in mounts:
    assert "--worker=all" in call
    assert option(call, "--command").endswith(
      "launch/worker.sh disk /mnt/disks/data/it\\'s"
    )


@pytest.mark.parametrize(
  ("disk", "more", "slice_", "sentence"),
  [
    (None, {}, "v3-32", "There is no disk images in europe-west4-a, where the"),
    (["CREATING", "pd-balanced", ""], {}, "v3-32", "The disk images is CREATI"),
    (["FAILED", "pd-balanced", ""], {}, "v3-32", "The disk images is FAILED; "),
    (
      BALANCED,
      {"writer": "loader-1"},
      "v3-32",
      "The disk images is attached for writing to loader-1; first: gcloud",
    ),
    (
      ["READY", "hyperdisk-ml", "READ_WRITE_SINGLE"],
      {},
      "v6e-16",
      "The disk images has the access mode READ_WRITE_SINGLE; first: gcloud "
      "compute disks update images --project=my-project --zone=europe-west4-a "
      "--access-mode=READ_ONLY_MANY",
    ),
    (BALANCED, {}, "v6e-16", "The disk images is a pd-balanced; v6e-16 takes"),
    (
      SHARED,
      {},
      "v3-32",
      "The disk images is a hyperdisk-ml; v3-32 takes only",
    ),
  ],
)
def test_a_disk_that_cannot_be_shared_is_refused_before_a_creation(
  rig, disk, more, slice_, sentence
):
  rig.plan(disks={"images": disk} if disk else {"other": BALANCED}, **more)
  where = ("--zone=europe-west4-a", "--price=0.01")
  result = rig.run(*RUN, f"--slice={slice_}", *where, status=2)
  assert f"tpu_vm.sh: {sentence}" in result.stderr
  assert rig.verbs == []


def test_who_may_not_ask_about_a_disk_may_use_it(rig):
  rig.plan(disk="Required 'compute.disks.get' permission", disks={"images": []})
  result = rig.run("up", *RUN)
  assert "How the disk images is cannot be found out: ERROR" in result.stderr
  assert rig.verbs == ["create", *START[:3]]


@pytest.mark.parametrize(
  ("slice_", "disk"), [("v5litepod-16", BALANCED), ("v6e-16", SHARED)]
)
def test_what_a_generation_takes_is_taken(rig, slice_, disk):
  rig.plan(disks={"images": disk})
  rig.run("up", *RUN, f"--slice={slice_}", "--price=0.01")
  assert rig.verbs == ["create", *START[:3]]


@pytest.mark.parametrize(
  ("words", "sentence"),
  [
    (
      ("--data=gs://bucket/tfds",),
      "With --data-disk --data is a folder below /mnt/disks/data, not gs://",
    ),
    (("--data=/mnt/disks/data2",), "With --data-disk --data is a folder below"),
    (("--data-disk=a/b",), "--data-disk takes the name of a disk, not a/b."),
  ],
)
def test_a_wrong_option_is_told_in_a_sentence(rig, words, sentence):
  result = rig.run(*RUN, *words, status=2)
  assert result.stderr.startswith(f"tpu_vm.sh: {sentence}")
  assert rig.calls == []


@pytest.mark.parametrize(
  ("delete", "last"), [("never", "disk"), ("always", "delete")]
)
def test_a_disk_that_a_worker_cannot_mount_ends_it(rig, delete, last):
  rig.plan(disks={"images": BALANCED}, mount=[[1]])
  result = rig.run(*RUN, f"--delete={delete}", status=2)
  error = "t1v-n-fake-w-1: mount: /mnt/disks/data: wrong fs type, bad option"
  assert f"A worker cannot read the disk. {error}" in result.stderr
  assert "t1v-n-fake-w-0: " not in result.stderr
  assert rig.verbs[-1] == last


def test_a_disk_that_was_mounted_before_is_tried_again(rig):
  preempted = {"polls": 0, "codes": [75, 75]}
  rig.plan(
    disks={"images": BALANCED}, mount=[[], [1]], runs=[preempted], states=[]
  )
  result = rig.run(*RUN)
  assert rig.verbs.count("create") == 1
  assert rig.verbs.count("start") == 2
  assert "A worker cannot read the data disk any more. Resuming" in (
    result.stderr
  )


def test_the_command_that_resumes_has_the_disk(rig):
  rig.plan(disks={"images": BALANCED}, runs=[{"polls": 999}])
  process = rig.start(*RUN)
  rig.wait_for("start", 1)
  process.send_signal(signal.SIGINT)
  _, errors = process.communicate(timeout=PATIENCE)
  again = next(x for x in errors.splitlines() if "to watch it again" in x)
  assert " --data-disk=images " in again


def test_a_dry_run_prints_what_it_asks_of_the_disk(rig):
  lines = rig.run(*RUN, "--dry-run").stdout.splitlines()
  (described,) = [line for line in lines if " disks describe " in line]
  assert described == (
    "gcloud compute disks describe images --project=my-project "
    "--zone=europe-west4-a --format='value(status,type.basename(),accessMode)'"
  )
  created = next(x for x in lines if " tpu-vm create " in x)
  assert lines.index(described) < lines.index(created)
  assert f" --data-disk=source={SOURCE},mode=read-only " in created


BOOT = """
/dev/sda - disk 0 -
/dev/sda1 /dev/sda part 0 /
/dev/loop0 - loop 1 /snap/core20
/dev/zram0 - disk 0 -
"""
SDB = "/dev/sdb - disk 1 -\n"


@pytest.mark.parametrize(
  ("disks", "device"),
  [
    (SDB, "/dev/sdb"),
    # The disk of a newer generation, with a partition.
    (
      "/dev/nvme0n2 - disk 0 -\n/dev/nvme0n2p1 /dev/nvme0n2 part 0 -\n",
      "/dev/nvme0n2",
    ),
    # Local storage that nobody uses, beside it.
    ("/dev/nvme0n1 - disk 0 -\n" + SDB, "/dev/sdb"),
  ],
)
def test_the_disk_is_found_by_what_it_is(rig, disks, device):
  worker = with_disks(rig, disks, device)
  folder = f"{rig.folder}/data"
  for _ in range(2):  # mounted, it is left alone
    text = on_worker(rig, 0, f"disk {folder}/tfds")
    assert "byol-disk t1v-n-fake-w-0 ok -\n" in text
  assert (worker / "mounts").read_text() == f"{device}\n"
  (rig.folder / "data").unlink()  # as after a reboot
  on_worker(rig, 0, f"disk {folder}/tfds")
  assert (worker / "mounts").read_text() == f"{device}\n" * 2
  text = on_worker(rig, 0, f"disk {folder}/other")
  assert "byol-disk t1v-n-fake-w-0 failed ls: cannot access " in text


def with_disks(rig, disks, device):
  """The home folder of a worker with those disks; `device` holds tfds."""
  start_workers(rig, {"BYOL_DISK_FOLDER": f"{rig.folder}/data"})
  worker = rig.worker(0)
  (worker / "disks").write_text(BOOT.lstrip() + disks)
  (worker / "systems" / device.rpartition("/")[2] / "tfds").mkdir(parents=True)
  return worker


@pytest.mark.parametrize(
  ("disks", "why"),
  [
    ("", "No disk is attached besides those in use; was this slice made"),
    (
      SDB + "/dev/sdc - disk 1 -\n",
      "Several disks may be meant: /dev/sdb /dev",
    ),
    ("/dev/sdx - disk 1 -\n", "mount: DATA: wrong fs type, bad option, bad "),
  ],
)
def test_why_there_is_no_disk_is_said(rig, disks, why):
  worker = with_disks(rig, disks, "/dev/sdb")
  text = on_worker(rig, 0, "disk")
  why = why.replace("DATA", f"{rig.folder}/data")
  assert f"byol-disk t1v-n-fake-w-0 failed {why}" in text
  assert not (worker / "mounts").exists()
