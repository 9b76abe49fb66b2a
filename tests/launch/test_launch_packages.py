"""launch/packages.sh: the environment as an archive in the workdir."""

import hashlib
import tarfile
import time

import pytest

from tests.fake_cloud.rig import CONTROLLER, FAKE, PATIENCE, START
from tests.fake_cloud.workers import (
  on_worker,
  set_environment,
  setup_line,
  start_line,
  start_workers,
  text_of,
  wait_for_state,
  wait_until,
)

pytest_plugins = ("tests.fake_cloud.fixtures",)
# Each test starts dozens of programs.
pytestmark = pytest.mark.slow


def kept(folder):
  """The checksums in a workdir; each is written after its archive."""
  return sorted((folder / "environments").glob("*.tar.gz.sha256"))


def is_whole(folder):
  """Whether a workdir has one archive, of the checksum beside it."""
  for checksum in kept(folder):
    archive = checksum.with_suffix("")
    found = archive.read_bytes() if archive.exists() else b""
    if hashlib.sha256(found).hexdigest() in checksum.read_text():
      return True
  return False


def wait_for_packing(home, times):
  """Until worker 0 has looked after the archive that often, once a start."""
  said = home / "run/tend.log"
  wait_until(lambda: text_of(said).count("The packages are") == times)
  wait_until(lambda: not list(home.glob("*.tar.gz")))


def set_up_log(rig, index):
  return (rig.worker(index) / "byol/run/setup.log").read_text()


def test_a_new_slice_needs_no_registry(rig):
  gone = rig.folder / "gone"
  rig.plan(
    workers=2,
    python=str(FAKE / "trainer"),
    environment=[{"TRAINER": "wait"}] * 2,
    states=[],
    preempt=[str(gone)],
  )
  process = rig.start(*CONTROLLER)
  bucket = rig.folder / "bucket/bucket/run"
  said = rig.worker(0) / "byol/run/tend.log"
  kept_as = "The packages are kept as gs://bucket/run/environments/"
  wait_until(lambda: kept_as in text_of(said))
  assert (rig.worker(0) / "uv.log").read_text().startswith("venv ")
  assert "There is no archive gs://bucket/run/env" in set_up_log(rig, 0)
  (checksum,) = kept(bucket)  # of worker 0 alone
  wait_until(lambda: not list(rig.worker(0).glob("byol/*.tar.gz")))
  archive = checksum.with_suffix("")
  found = hashlib.sha256(archive.read_bytes()).hexdigest()
  assert checksum.read_text().split()[0] == found
  before = archive.stat().st_mtime_ns
  with tarfile.open(archive) as tar:
    names = tar.getnames()
  assert {"venv/bin/python", "python/cpython-3.12/bin/python3"} < set(names)
  # Half of an archive, unpacked, must not look like all of it.
  assert "venv/stamp" not in names

  gone.touch()
  rig.wait_for("start", 2)
  # Until all run, by their files: the fake gcloud takes one caller at a time.
  units = [rig.worker(index) / "unit/pid" for index in (0, 1)]
  wait_until(lambda: all(map(text_of, units)))
  # The home folder of a fake machine has a path of its own, which real ones
  # share; so the other worker finds no archive of its key.
  assert not (rig.worker(0) / "uv.log").exists()
  assert "The packages are those of gs://" in set_up_log(rig, 0)
  assert (rig.worker(1) / "uv.log").exists()
  assert [verb for verb in rig.verbs if verb != "logs"] == [
    *("create", *START),
    *("delete", "create", *START),
  ]
  process.terminate()
  assert process.wait(PATIENCE) == 143
  assert archive.stat().st_mtime_ns == before


@pytest.mark.parametrize(
  ("accelerator", "other"), [("v6e-16", "libtpu==0.0.43.2"), ("v5e-16", "")]
)
def test_v6e_gets_a_compiler_that_does_not_crash(rig, accelerator, other):
  start_workers(rig, {"FAKE_ACCELERATOR": accelerator})
  *_, last = (rig.worker(0) / "uv.log").read_text().splitlines()
  assert last.endswith(other or "--extra tpu")
  # The archive of its packages is no other generation's.
  home = rig.worker(0) / "byol"
  stamp = (home / "venv/stamp").read_text()
  (home / "accelerator").write_text("v4-8")
  on_worker(rig, 0, setup_line())
  assert ((home / "venv/stamp").read_text() != stamp) == bool(other)


def test_a_machine_that_cannot_learn_its_kind_is_not_set_up(rig):
  start_workers(rig, {})
  home = rig.worker(0) / "byol"
  (home / "accelerator").unlink()
  (home / "venv/stamp").unlink()
  (rig.worker(0) / "no-metadata").touch()
  assert "The set-up failed" in on_worker(rig, 0, setup_line(), status=1)
  assert not (home / "accelerator").exists()
  on_worker(rig, 0, setup_line())
  assert (home / "venv/stamp").exists()


def make_bad(archive, how):
  """Spoils an archive as `how` says."""
  checksum = archive.with_name(archive.name + ".sha256")
  if how == "damaged":
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
  elif how == "missing":
    archive.unlink()
  elif how == "torn":
    checksum.unlink()
  elif how == "half":
    archive.write_bytes(archive.read_bytes()[:-100])
    write_checksum(archive)
  elif how == "blind":  # its Python does not start
    with tarfile.open(archive, "w:gz") as tar:
      tar.addfile(tarfile.TarInfo("venv/bin/python"))
    write_checksum(archive)


def write_checksum(archive):
  found = hashlib.sha256(archive.read_bytes()).hexdigest()
  archive.with_name(archive.name + ".sha256").write_text(f"{found}  -\n")


ARCHIVES = {
  "good": "The packages are those of ",
  "damaged": "is not used: its checksum does not agree. Inst",
  "missing": "is not used: it could not be read. Inst",
  "torn": "or it is not complete.",
  "half": "is not used: it could not be unpacked. Inst",
  "blind": "is not used: its Python does not import jax. Inst",
}


@pytest.mark.parametrize(
  "kinds",
  [
    ("good", "damaged"),
    pytest.param(("missing", "torn", "half", "blind"), marks=pytest.mark.slow),
  ],
)
def test_an_archive_is_used_whole_or_not_at_all(rig, kinds):
  start_workers(rig, {})
  home, folder = rig.worker(0) / "byol", rig.folder / "run/environments"
  log = rig.worker(0) / "uv.log"
  for number, how in enumerate(kinds, 1):
    # After each start worker 0 leaves a good one in the place of a bad one.
    on_worker(rig, 0, start_line(rig, how))
    wait_for_packing(home, number)
    assert is_whole(rig.folder / "run")
    wait_for_state(rig, 0, "exited")
    (archive,) = folder.glob("*.tar.gz")
    make_bad(archive, how)
    # As on a new machine, but something of an older environment is there.
    (home / "venv/stamp").unlink()
    (home / "venv/left").touch()
    log.unlink(missing_ok=True)
    on_worker(rig, 0, setup_line(rig.folder / "run"))
    assert ARCHIVES[how] in set_up_log(rig, 0)
    assert log.exists() == (how != "good"), how
    assert (home / "venv/stamp").exists()
    assert not (home / "venv/left").exists()
    assert not list(home.glob("*.tar.gz"))
    # What was not read may be whole for others.
    left = how in ("good", "missing")
    assert bool(kept(rig.folder / "run")) == left


def test_a_set_up_that_hangs_ends_and_another_can_begin(rig):
  start_workers(rig, {})
  home = rig.worker(0)
  (home / "byol/venv/stamp").unlink()
  (home / "hang").touch()
  set_environment(rig, 0, BYOL_INSTALL_SECONDS="2")
  begun = time.monotonic()
  assert "The set-up failed" in on_worker(rig, 0, setup_line(), status=1)
  assert time.monotonic() - begun < 300  # what hangs would take 600
  (home / "hang").unlink()
  set_environment(rig, 0, BYOL_INSTALL_SECONDS="600")
  on_worker(rig, 0, setup_line())
  assert (home / "byol/venv/stamp").exists()


def test_no_archive_is_made_of_an_environment_that_is_not_whole(rig):
  start_workers(rig, {})
  stamp = rig.worker(0) / "byol/venv/stamp"
  stamp.write_text("another key")
  on_worker(rig, 0, start_line(rig, "id1"))
  said = rig.worker(0) / "byol/run/tend.log"
  wait_until(lambda: "The packages were not kept." in text_of(said))
  assert not (rig.folder / "run/environments").exists()
