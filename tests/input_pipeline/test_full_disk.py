"""A disk that takes no more: recognised, told in one sentence, nothing lost."""

import errno
import os
import resource
import shutil
import signal
import subprocess

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image

from byol_flax import main
from byol_flax.runs import out_files
from input_pipeline import full_disk
from input_pipeline.errors import DiskFullError, RunError
from input_pipeline.prepare import array_records
from tests import forks, trainers
from tests.runs.test_metrics_log import run_python
from tests.runs.test_older_records import FLAGS


@pytest.fixture
def small_disk(tmp_path):
  """Yields how to make a file system of so many bytes, which is a folder."""
  folder = tmp_path / "disk"
  folder.mkdir()

  def mount(options):
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
      pytest.skip(f"only root may mount a small disk: {done.stderr}")
    return folder

  yield mount
  subprocess.run(["umount", "--lazy", str(folder)], check=False)


def error_of(function, *arguments):
  try:
    function(*arguments)
  except Exception as error:
    return error
  raise AssertionError("nothing was raised")


def write_full():
  with open("/dev/full", "w") as file:
    file.write("x")


def write_large(path):
  """Past the limit of a process, as `ulimit -f` sets it."""
  before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
  try:
    path.write_bytes(bytes(2000))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, before)


def write_records(path):
  os.symlink("/dev/full", f"{path}.tmp")
  array_records.write(str(path), [b"x" * 10_000_000] * 4)


def save(path):
  noise = np.random.default_rng(0).random((300, 300))  # ones are packed
  state = {"a": jnp.asarray(noise, jnp.float32)}
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path / "1", state)


def test_errors_of_every_writer_are_recognised(tmp_path, small_disk):
  assert full_disk.problem(error_of(write_full)) == errno.ENOSPC
  large = error_of(write_large, tmp_path / "large")
  assert full_disk.problem(large) == errno.EFBIG
  of_records = error_of(write_records, tmp_path / "records")
  assert type(of_records) is RuntimeError
  assert full_disk.problem(of_records) == errno.ENOSPC
  disk = small_disk("size=64k")
  assert full_disk.problem(error_of(save, disk)) == errno.ENOSPC
  small_disk("remount,ro")
  assert full_disk.problem(error_of((disk / "x").touch)) == errno.EROFS


def test_causes_are_looked_for_and_other_errors_are_left_alone():
  def nested(outer):
    try:
      write_full()
    except OSError as error:
      raise outer from error

  def while_cleaning_up():
    try:
      write_full()
    finally:
      raise KeyError("x")

  group = ExceptionGroup("two", [ValueError(), error_of(write_full)])
  for found in (
    error_of(nested, RuntimeError("AsyncWriter")),
    error_of(while_cleaning_up),
    group,
  ):
    assert full_disk.problem(found) == errno.ENOSPC
  for other in (
    RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
    FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)),
    RunError(f"Process 1 said: {os.strerror(errno.ENOSPC)}"),
    None,
  ):
    assert full_disk.problem(other) is None


@pytest.mark.parametrize(
  ("number", "words"),
  [
    (errno.ENOSPC, "The disk of W is full. Please make room there; then."),
    (errno.EDQUOT, "Your quota on the disk of W is used up"),
    (errno.EFBIG, "would become larger"),
    (errno.EROFS, "The disk of W has become read-only"),
  ],
)
def test_what_is_full_is_told_in_a_sentence(number, words):
  with (
    pytest.raises(DiskFullError, match=words),
    full_disk.told("W", lambda: "then"),
  ):
    raise ValueError(f"UNKNOWN: write: {os.strerror(number)} [code='9']")


def test_room_is_asked_for_before_anything_is_written(tmp_path):
  free = shutil.disk_usage(tmp_path).free
  full_disk.check_room(str(tmp_path), free // 2)
  full_disk.check_room("gs://bucket/run", 2**60)
  found = error_of(full_disk.check_room, str(tmp_path), 2 * free + 2**30)
  assert full_disk.problem(found) == errno.ENOSPC


def test_results_are_not_refused_as_a_mistake_of_usage(tmp_path):
  (tmp_path / "out.json.tmp").symlink_to("/dev/full")
  found = error_of(out_files.write_json, str(tmp_path / "out.json"), {"a": 1})
  assert full_disk.problem(found) == errno.ENOSPC


def test_threads_of_libraries_do_not_tell_it_again():
  code = (
    "import errno, logging, sys, types; from absl import logging as absl; "
    "from input_pipeline import full_disk\n"
    "full_disk.hush()\n"
    "for log in (absl.exception, logging.getLogger('asyncio').exception):\n"
    "  for number in (errno.ENOSPC, errno.EIO):\n"
    "    try: raise ValueError from OSError(number, f'number {number}')\n"
    "    except ValueError: log('in a thread')\n"
    "class Ends:\n"
    "  def __del__(self): raise RuntimeError('Event loop is closed')\n"
    "Ends()\n"
  )
  _, told = run_python(code)
  assert told.count("in a thread") == 2
  assert f"number {errno.EIO}" in told
  assert f"number {errno.ENOSPC}" not in told
  assert "Event loop" not in told


def test_prepare_goes_on_when_there_is_room(tmp_path, small_disk):
  rng = np.random.default_rng(0)
  for name in range(40):
    noise = rng.integers(0, 256, (60, 60, 3), np.uint8)  # 10 KB as PNG
    Image.fromarray(noise).save(tmp_path / f"{name}.png")
  disk = small_disk("size=200k")
  command = ("prepare", str(tmp_path), str(disk / "out"), "--workers=1")
  disk_full = f"The disk of {disk}.* then goes on where it stopped"
  for _ in range(2):
    with pytest.raises(DiskFullError, match=disk_full):
      main.main(command)
  assert not list(disk.rglob("*.tmp"))
  small_disk("remount,size=9m")
  assert main.main(command) == 0


def train(workdir):
  epochs = ("--config.epochs=0.8", "--config.warmup_epochs=0.2")
  return forks.byol("train", *FLAGS, *epochs, f"--workdir={workdir}")


@pytest.mark.slow
def test_a_run_on_a_full_disk_ends_in_a_sentence_and_goes_on(small_disk):
  disk = small_disk("size=700k")  # of which a run with its checkpoints has 1300
  workdir = disk / "run"
  first, again = train(workdir), train(workdir)
  for ended in (first, again):
    assert ended.returncode == 1, ended.stderr
    *before, last = ended.stderr.splitlines()
    saved = trainers.saves(workdir)[-1]
    assert last == (
      f"byol: The disk of {workdir} is full. Please make room there; the same "
      f"command resumes from checkpoint {saved}, which is kept."
    )
    assert not [line for line in before if "rror" in line or "Trace" in line]
  small_disk("remount,size=9m")
  made_room = train(workdir)
  assert made_room.returncode == 0, made_room.stderr
  assert f"update {saved} of 17" in made_room.stderr
  assert trainers.saves(workdir)[-1] == 17
  assert not list(workdir.glob("checkpoints/*tmp*"))
