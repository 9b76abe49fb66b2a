"""A console that goes away costs no work."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import cv2
import numpy as np
import pytest

from tests import forks, soak, trainers

TALKS = """
import contextlib, os, sys
from byol_flax.runs import console
console.protect()
for _ in range(3):
  print("τ" * 100_000)
  sys.stderr.write("τ\\n")
  with contextlib.suppress(OSError):
    os.write(1, b"of a library in C")
  console.say("something")
os.write(int(sys.argv[1]), b"whole")
"""


def nobody():
  """The write end of a pipe that nobody reads."""
  reader, writer = os.pipe()
  os.close(reader)
  return writer


@pytest.mark.parametrize(
  "redirect", ["", ">/dev/full 2>&1", ">&- 2>&-", "<&- >&- 2>&-"]
)
def test_a_process_lives_on_without_console(redirect):
  reader, writer = os.pipe()
  out = nobody()
  command = f'"{sys.executable}" -c "$0" {writer} {redirect}'
  done = subprocess.run(
    ["bash", "-c", command, TALKS],
    env={**os.environ, "PYTHONIOENCODING": "ascii"},
    cwd=trainers.ROOT,
    stdout=out,
    stderr=out,
    pass_fds=[writer],
    check=False,
  )
  os.close(writer)
  with open(reader, "rb") as file:
    assert file.read() == b"whole"
  assert done.returncode == 0


def test_lines_arrive_at_once_and_a_full_disk_may_be_emptied(tmp_path):
  code = TALKS.replace("range(3)", "range(1)").replace("100_000", "2")
  done = subprocess.run(
    [sys.executable, "-c", code, "1"],
    env={**os.environ, "PYTHONIOENCODING": "ascii"},
    cwd=trainers.ROOT,
    capture_output=True,
    check=True,
  )
  assert done.stdout == b"\\u03c4\\u03c4\nof a library in Cwhole"
  assert done.stderr == b"\\u03c4\nbyol: something\n"


@pytest.mark.slow
def test_a_command_ends_well_when_nobody_listens(tmp_path):
  images = tmp_path / "images"
  images.mkdir()
  for i in range(3):
    image = np.full((8, 8, 3), i, np.uint8)
    cv2.imwrite(str(images / f"{i}.png"), image)
  module = [sys.executable, "-m", "byol_flax.main"]
  done = subprocess.run(
    [*module, "prepare", str(images), str(tmp_path), "--split=train"],
    cwd=trainers.ROOT,
    stdout=nobody(),
    stderr=nobody(),
    check=False,
  )
  assert done.returncode == 0
  assert (tmp_path / "images/1.0.0/features.json").exists()


@pytest.mark.slow
def test_a_run_survives_its_reader_and_saves_when_its_terminal_closes(tmp_path):
  workdir = tmp_path / "run"
  flags = [
    *soak.short(soak.LONG),
    f"--workdir={workdir}",
    "--config.loader.num_workers=1",
  ]
  terminal, its = pty.openpty()

  def lead():
    os.setsid()
    fcntl.ioctl(its, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

  run = subprocess.Popen(
    [sys.executable, "-m", "byol_flax.main", "train", *flags],
    cwd=trainers.ROOT,
    stdin=its,
    stdout=its,
    stderr=its,
    preexec_fn=lead,
  )
  os.close(its)
  deadline = time.monotonic() + 300
  while trainers.last_update(workdir) < 3:
    assert run.poll() is None, os.read(terminal, 10_000)
    assert time.monotonic() < deadline
    time.sleep(0.05)
  os.close(terminal)
  assert run.wait(300) == 75
  (saved,) = trainers.saves(workdir)[-1:]
  assert saved == trainers.last_update(workdir) < soak.LONG

  pipe = tmp_path / "stderr"
  os.mkfifo(pipe)
  run = forks.start("train", *flags, streams=[os.devnull, pipe])
  with open(pipe) as errors:
    assert "update" in errors.readline()
  assert run.wait() == 0
  assert trainers.saves(workdir)[-1] == soak.LONG
  assert (workdir / "curves.png").exists()
