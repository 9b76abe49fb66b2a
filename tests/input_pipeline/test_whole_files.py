"""Files are whole or absent; folders that take none are told; locks hold."""

import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from byol_flax.commands import prepare
from byol_flax.commands.command_line import parse_command
from byol_flax.runs import compilation, out_files, workdir
from input_pipeline import locks, whole_files
from input_pipeline.errors import RunError, UsageError
from tests.forks import ROOT


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
  path = tmp_path / "kept.txt"
  path.write_text("old")
  (tmp_path / "kept.txt.tmp").symlink_to("/dev/full")
  with pytest.raises(OSError, match="No space left"):
    whole_files.write_text(path, "new" * 100_000)
  assert path.read_text() == "old"
  assert [entry.name for entry in tmp_path.iterdir()] == ["kept.txt"]


def test_a_folder_that_takes_files_is_made_and_left_empty(tmp_path):
  folder = tmp_path / "a" / "b"
  assert whole_files.why_unwritable(folder) == ""
  assert list(folder.iterdir()) == []


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="no such file system")
def test_permissions_that_promise_too_much_are_not_believed(tmp_path):
  """Root may write to /proc by its permissions, and nobody can."""
  assert whole_files.why_unwritable("/proc")
  for place in (workdir.check_writable, prepare_into):
    with pytest.raises(UsageError, match="/proc"):
      place("/proc")
  with pytest.raises(UsageError, match=r"x\.json: /proc takes no files"):
    out_files.check_writable("/proc/x.json")
  assert compilation.keep_programs("/proc") is None


def prepare_into(out):
  options, _ = parse_command(["prepare", "/nowhere", out, "--name=x"])
  prepare.run(options)


def test_a_lock_names_its_holder_and_is_let_go_of(tmp_path):
  path = str(tmp_path / "lock")
  for _ in range(2):
    with (
      locks.taken(path),
      pytest.raises(locks.TakenError, match=f"^process {os.getpid()} on"),
      locks.taken(path),
    ):
      pass


KILLED = """
import os, signal, sys
from input_pipeline import whole_files

def kill(event, _):
  if event == "os.remove":
    os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
whole_files.why_unwritable(sys.argv[1])
"""


def test_a_probe_of_a_killed_process_is_removed_by_the_next(tmp_path):
  killed = subprocess.run(
    [sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT
  )
  assert killed.returncode == -signal.SIGKILL
  assert len(list(tmp_path.iterdir())) == 1
  assert not whole_files.why_unwritable(tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("text", "why"),
  [
    (b"", "Expecting value"),
    (b'{"step": 1', "Expecting ',' delimiter"),
    (b"[1]", "it holds a list"),
    (b"\xff\xfe\x00", "codec can't decode"),
  ],
)
def test_a_damaged_object_is_told_by_its_name(tmp_path, text, why):
  path = tmp_path / "evaluation.json"
  path.write_bytes(text)
  with pytest.raises(UsageError, match=f"{path} should be a JSON.*(?:{why})"):
    whole_files.read_object(path)
  path.write_text('{"step": 1}')
  assert whole_files.read_object(path) == {"step": 1}


def test_damaged_arrays_are_told_by_their_name(tmp_path):
  path = tmp_path / "features.npz"
  whole_files.write_arrays(path, {"x": np.arange(1000)})
  whole = path.read_bytes()
  flipped = bytearray(whole)
  flipped[len(whole) // 2] ^= 255
  array = io.BytesIO()
  np.save(array, np.arange(3))
  for damaged in (b"", b"PK", whole[:-9], flipped, array.getvalue()):
    path.write_bytes(damaged)
    with pytest.raises(RunError, match=f"{path} is damaged. Restore it"):
      whole_files.read_arrays(path)
  path.write_bytes(whole)
  assert whole_files.read_arrays(path)["x"][-1] == 999
