"""A console that goes away costs no work."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests import trainers

TALKS = """
import contextlib, os, sys
from byol_flax import console
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
