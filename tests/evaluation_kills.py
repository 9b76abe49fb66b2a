"""SIGKILL at random moments of every evaluation, which must not show.

Command: python -m tests.evaluation_kills [--kills=6] [--topology=1x1]
  [--only=NAME] [--seed=0]

Each protocol, and the suite, runs once undisturbed. Then the same command runs
in another folder, gets SIGKILL at a random moment, is started again, and so on
until it ends. That is repeated, in a new folder, until there were so many
kills; a last start finds all that was done. Half of the kills wait for the next
file that appears or vanishes, because files are what a kill can damage. On
P x D, P processes of D devices each, the signal goes to one process, and the
others must end by themselves.

kNN and few_label keep nothing, and begin anew (see configs/knn.py); all others
go on from what they kept.

Checked, against what was found undisturbed: every field of all results,
reports, scores and metrics, and every array of features, is equal bit for bit
(but for seconds and wall-clock times); every update is reported once, as the
lines of the metrics are the same; the same files and newest checkpoints lie
there, and nothing else; no temporary file and no input worker is left behind.
The command prints a table, and exits with 1 if anything was otherwise.
"""

import argparse
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

from tests import trainers
from tests.evaluation import every_protocol

DEADLINE = 150  # seconds for the processes to end after one was killed


class Kills:
  """One protocol: its undisturbed run, and those that are killed."""

  def __init__(self, folder, name, topology):
    self.folder, self.name = folder, name
    self.processes, self.devices = map(int, topology.split("x"))
    self.flags = every_protocol.flags(name, folder, "float32")
    self.seconds = 0.0  # of the shortest run that was not killed
    self.faults = []

  def start(self, workdir):
    return trainers.Trainers(
      workdir,
      self.flags,
      processes=self.processes,
      devices=self.devices,
      command="evaluate",
    )

  def run(self, kills, rng):
    """Returns the row of the table."""
    # The first one compiles; the second tells how long the others take.
    for number in range(2):
      begun = time.monotonic()
      whole = self.folder / f"{self.name}-whole{number}"
      self.start(whole).finish()
      self.seconds = time.monotonic() - begun
    expected = every_protocol.found(whole), every_protocol.files(whole)
    done, runs, lost = 0, 0, []
    while done < kills:
      runs += 1
      workdir = self.folder / f"{self.name}-killed{runs}"
      while done < kills and (moment := self.strike(workdir, rng)):
        done += 1
        lost.append(moment)
      self.start(workdir).finish()
      self.compare(workdir, *expected)
      shutil.rmtree(workdir)
    return {
      "seconds undisturbed": f"{self.seconds:.1f}",
      "kills": done,
      "runs": runs,
      "after seconds": " ".join(f"{moment:.1f}" for moment in lost),
      "fields": len(expected[0]),
      "faults": len(self.faults),
    }

  def strike(self, workdir, rng):
    """Starts, and kills after a random time; 0 if it ended before that."""
    run, begun = self.start(workdir), time.monotonic()
    moment = begun + rng.uniform(0.05, 0.95) * self.seconds
    waits_for_file = rng.random() < 0.5
    while run.running() and time.monotonic() < moment:
      time.sleep(0.005)
    before = _listing(workdir)
    while run.running() and waits_for_file and _listing(workdir) == before:
      time.sleep(0.0005)
    victim = rng.randrange(self.processes)
    run.signal(victim, signal.SIGKILL)
    struck = time.monotonic() - begun
    codes = run.wait(DEADLINE)
    if set(codes) == {0}:
      self.seconds = min(self.seconds, struck)
      return 0
    others = [code for i, code in enumerate(codes) if i != victim]
    if codes[victim] not in (-9, 0) or any(c in (2, 75) for c in others):
      self.fault(f"ended with {codes} after a kill:\n{run.logs()}")
    return struck

  def compare(self, workdir, expected, files):
    found = every_protocol.found(workdir)
    different = every_protocol.differences(found, expected)
    for place, distance in different.items():
      self.fault(
        f"{place} is {found.get(place, 'absent')}, undisturbed "
        f"{expected.get(place, 'absent')} (differs by {distance:g})"
      )
    there = every_protocol.files(workdir)
    for name in sorted(there - files):
      self.fault(f"{name} was left behind")
    for name in sorted(files - there):
      self.fault(f"{name} is absent")

  def fault(self, sentence):
    self.faults.append(sentence)
    print(f"FAULT: {self.name}: {sentence[:2000]}", flush=True)


def _listing(workdir):
  """Names of all files, without what libraries keep for themselves."""
  names = set()
  for folder, _, found in os.walk(workdir):
    names.update(os.path.join(folder, name) for name in found)
  return names


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--kills", type=int, default=6)
  parser.add_argument("--topology", default="1x1")
  parser.add_argument("--only", choices=every_protocol.NAMES, action="append")
  parser.add_argument("--seed", type=int, default=0)
  options = parser.parse_args()
  rng = random.Random(options.seed)
  begun, faults = time.monotonic(), 0
  with tempfile.TemporaryDirectory() as text:
    folder = pathlib.Path(text)
    temporary = folder / "tmp"
    temporary.mkdir()
    os.environ.update(
      # Every start compiles the same programs.
      JAX_COMPILATION_CACHE_DIR=f"{folder}/compiled",
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
      TMPDIR=str(temporary),
    )
    for name in options.only or every_protocol.NAMES:
      kills = Kills(folder, name, options.topology)
      row = kills.run(options.kills, rng)
      print(
        f"{name}: " + "; ".join(f"{key} {x}" for key, x in row.items()),
        flush=True,
      )
      faults += len(kills.faults)
    time.sleep(3)  # workers look for their parent once a second
    for line in trainers.orphans():
      faults += 1
      print(f"FAULT: left behind: {line}")
    for path in temporary.iterdir():
      # TFDS makes one, killed or not, for a set that is not prepared.
      if not path.name.endswith("tfds"):
        faults += 1
        print(f"FAULT: left behind: {path.relative_to(folder)}")
  print(f"minutes: {(time.monotonic() - begun) / 60:.1f}")
  print(f"{faults} faults" if faults else "all as it must be")
  return bool(faults)


if __name__ == "__main__":
  sys.exit(main())
