"""`byol prepare` killed again and again, as an ImageNet of our own.

Command: python -m tests.prepare_killed --images=20000 --kills=20
Packs photographs as ImageNet packs them (a tar of tars), prepares them once
undisturbed and once with SIGKILL to the whole process group at random moments,
and compares every file that the two left.
"""

import argparse
import hashlib
import io
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

import cv2
import numpy as np

CLASSES = 20


def pack(path, images):
  """A tar of one tar for each class, every JPEG another."""
  rng = np.random.default_rng(0)
  with tarfile.open(path, "w") as outer:
    for label in range(CLASSES):
      inner_bytes = io.BytesIO()
      with tarfile.open(fileobj=inner_bytes, mode="w") as inner:
        for i in range(label, images, CLASSES):
          coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
          image = cv2.resize(coarse, (250, 188))
          jpeg = cv2.imencode(".jpg", image)[1].tobytes()
          add(inner, f"n{label:08d}_{i}.JPEG", jpeg)
      add(outer, f"n{label:08d}.tar", inner_bytes.getvalue())


def add(tar, name, content):
  info = tarfile.TarInfo(name)
  info.size = len(content)
  tar.addfile(info, io.BytesIO(content))


def command(source, out):
  words = [sys.executable, "-m", "byol_flax.main", "prepare", source, out]
  return [*map(str, words), "--name=photos", "--split=train"]


def contents(folder):
  """File name -> digest of every file."""
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--images", type=int, default=20_000)
  parser.add_argument("--kills", type=int, default=20)
  options = parser.parse_args()
  rng = np.random.default_rng(1)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    source = folder / "train.tar"
    pack(source, options.images)
    began = time.monotonic()
    subprocess.run(
      command(source, folder / "whole"), check=True, stdout=subprocess.DEVNULL
    )
    whole = time.monotonic() - began
    print(
      f"undisturbed: {options.images:,} images, "
      f"{source.stat().st_size / 2**20:,.0f} MiB in {whole:.1f} s"
    )
    killed = 0
    while killed < options.kills:
      process = subprocess.Popen(
        command(source, folder / "killed"),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
      )
      # Most moments are early ones, so that the work is not done too soon.
      try:
        process.wait(timeout=2.0 + rng.exponential(whole / options.kills))
        break
      except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        killed += 1
    done = subprocess.run(
      command(source, folder / "killed"),
      check=True,
      capture_output=True,
      text=True,
    )
    first, second = contents(folder / "whole"), contents(folder / "killed")
    print(f"killed {killed} times; the last start said:")
    print(done.stdout.replace(name, "FOLDER"))
    print(f"{len(first)} files, equal: {first == second}")
    sys.exit(first != second)


if __name__ == "__main__":
  main()
