"""Signals at random moments, on changing numbers of processes and devices.

Command: python -m tests.soak --events=24 --updates=60
  or, with one topology, for equal bits:
         python -m tests.soak --events=10 --topology=1x1

One run is left alone. Another gets SIGKILL or SIGTERM again and again, to a
random process at a random moment, is started again on another topology (P x D:
processes x devices of each) with none or one input worker in turn, and is then
let finish. Checked after every event: all processes end in time, with the exit
codes of the contract; the next start resumes from the newest committed
checkpoint; after a SIGTERM that checkpoint is the last update done. Checked at
the end: every update was reported once, saw the same views, and had the same
loss, and both runs end in the same state.

Topologies add up in different orders, and training lets a difference grow: in
float32 it turns the sign of some value before a ReLU within 60 updates, and two
healthy runs part. So the command trains in float64, where rounding is too small
for that. It exits with 0 if all was as it must be, else with 1.
"""

import argparse
import collections
import os
import pathlib
import random
import signal
import statistics
import sys
import tempfile
import time

from tests import trainers

TOPOLOGIES = ("2x4", "1x8", "1x4", "4x2")
DEADLINE = 150  # seconds for all processes to end after an event
# In float64: of a loss, and of an array relative to its largest value.
BOUND = 1e-9
SHORT = 20  # updates of the runs of tests, the same so that they compile once
LONG = 60  # more than are made until a signal is noticed


def flags(updates):
  """A small run of `updates` updates of 32 digits."""
  return [
    f"--config={trainers.ROOT}/configs/byol_digits.py",
    "--config.batch_size=32",
    f"--config.epochs={(updates + 0.5) * 32 / 1437}",
    "--config.warmup_epochs=0.2",
    "--config.base_learning_rate=1.0",
    "--config.model.encoder.width=0.25",
    "--config.augment.size=8",
    "--config.evaluation.every_steps=25",
    "--config.report.every_steps=1",
    "--config.report.view_hashes=true",
    "--config.checkpoint.every_steps=5",
    "--config.deadlines.start_seconds=40",
    "--config.deadlines.silence_seconds=30",
  ]


def short(updates=SHORT):
  """As `flags`, with the network that is traced fastest, for tests."""
  return [
    *flags(updates),
    "--config.model.encoder.architecture=basic:1:4:8",
    "--config.model.encoder.width=1",
  ]


class Soak:
  """Two runs of equal flags, one of them interrupted; what was found amiss.

  Attributes:
    faults: a sentence for each thing that was not as it must be.
    rows: one dict for each event.
  """

  def __init__(self, folder, *, updates, topologies, dtype):
    """Bits must be equal on one topology; on several, float64 numbers."""
    assert len(topologies) == 1 or dtype == "float64"
    self.whole, self.soaked = folder / "whole", folder / "soaked"
    self.updates, self.topologies, self.dtype = updates, topologies, dtype
    self.faults = []
    self.rows = []

  def start(self, workdir, topology, workers=1):
    processes, devices = map(int, topology.split("x"))
    return trainers.Trainers(
      workdir,
      [
        *flags(self.updates),
        f"--config.dtype={self.dtype}",
        f"--config.loader.num_workers={workers}",
      ],
      processes=processes,
      devices=devices,
      float64=self.dtype == "float64",
      fresh=True,
    )

  def run(self, events, seed, say=print):
    """Interrupts one run `events` times; returns what was compared."""
    self.start(self.whole, min(self.topologies)).finish()
    rng = random.Random(seed)
    topology = self.topologies[0]
    for event in range(events):
      row = self.strike(topology, event % 2, rng, events - event)
      say(f"{event + 1:3} {words(row)}", flush=True)
      others = [name for name in self.topologies if name != topology]
      topology = rng.choice(others or list(self.topologies))
    self.start(self.soaked, topology).finish()
    time.sleep(3)  # they look for their parent once a second
    self.expect(not trainers.orphans(), "input workers were left behind")
    return self.compare()

  def expect(self, truth, sentence):
    if not truth:
      self.faults.append(sentence)

  def strike(self, topology, workers, rng, events_left):
    """Sends one signal at a random moment; returns what came of it."""
    workdir, updates = self.soaked, self.updates
    saved = max(trainers.saves(workdir), default=0)
    starts = len(trainers.lines(workdir / "starts.jsonl"))
    run = self.start(workdir, topology, workers)
    begun = time.monotonic()
    if rng.random() < 0.3:  # while it starts
      wait, until = rng.uniform(0.5, 15), updates
    else:  # so many updates later
      share = 2 * (updates - saved) / (events_left + 1)
      # Every event that is left must find an update left to do.
      last = updates - events_left - 1
      wait, until = 120, min(saved + rng.uniform(0, share), last)
    while run.running() and time.monotonic() < begun + wait:
      # Until this start opens its report, the last one's stands there.
      trained = len(trainers.lines(workdir / "starts.jsonl")) > starts
      if trained and trainers.last_update(workdir) >= max(until, saved + 1):
        break
      time.sleep(0.05)
    time.sleep(rng.uniform(0, 0.5))
    number = rng.choice([signal.SIGKILL, signal.SIGTERM])
    victim = rng.randrange(len(run.processes))
    run.signal(victim, number)
    struck = time.monotonic()
    codes = run.wait(DEADLINE)
    row = {
      "topology": topology,
      "signal": trainers.NAMES[number],
      "victim": victim,
      "after": struck - begun,
      "ended": time.monotonic() - struck,
      "codes": codes,
      "resumed": saved,
      "trained": len(trainers.lines(workdir / "starts.jsonl")) > starts,
      "saved": max(trainers.saves(workdir), default=0),
      "reported": trainers.last_update(workdir),
    }
    self.rows.append(row)
    self.expect(
      kept_contract(row, updates),
      f"{words(row)}: against the contract\n{run.logs()}",
    )
    self.expect(
      row["saved"] >= saved, f"{words(row)}: a committed checkpoint was lost"
    )
    return row

  def compare(self):
    """Compares the interrupted run with the one that was left alone."""
    every = list(range(1, self.updates + 1))
    both = (self.whole, self.soaked)
    losses = [losses_of(run) for run in both]
    for run, found in zip(both, losses, strict=True):
      self.expect([step for step, _ in found] == every, f"updates of {run}")
    views = [trainers.views_seen(run, self.updates) for run in both]
    self.expect(sorted(views[0]) == every, f"digests of {self.whole}")
    self.expect(views[0] == views[1], "the runs saw different views")
    pairs = zip(*losses, strict=False)
    loss = max(abs(x - y) for (_, x), (_, y) in pairs)
    states = [trainers.state_of(run, self.updates) for run in both]
    array = trainers.largest_difference(*states)
    bits = [{path: x.tobytes() for path, x in s.items()} for s in states]
    bound = 0 if len(self.topologies) == 1 else BOUND
    self.expect(loss <= bound, f"a loss differs by {loss}")
    self.expect(array <= bound, f"an array differs by {array}")
    self.expect(bound or bits[0] == bits[1], "bits of the state differ")
    equal = sum(bits[0][path] == bits[1][path] for path in bits[0])
    return {
      "dtype": self.dtype,
      "updates": self.updates,
      "equal view digests": len(views[0].items() & views[1].items()),
      "largest difference of a loss": loss,
      "largest difference of an array, of its largest value": array,
      "both may be": bound,
      "arrays with equal bits": f"{equal} of {len(states[0])}",
    }


def kept_contract(row, updates):
  """Whether the processes ended as they must after one event."""
  codes, victim = row["codes"], row["victim"]
  others = [code for i, code in enumerate(codes) if i != victim]
  done = row["saved"] == updates and set(codes) <= {0, -9}
  failed = all(code not in (0, 2, 75) for code in others)
  if row["signal"] == "KILL":
    # The others end too, whatever they were at, and say that one was lost.
    return codes[victim] in (-9, 0) and (done or failed)
  if -15 in codes:
    # Before JAX's handler stood there was no run yet to save.
    return codes[victim] == -15 and failed
  # A start that did not get so far leaves the reports of the one before.
  saved = not row["trained"] or row["saved"] == row["reported"]
  return done or (set(codes) == {75} and saved)


def words(row):
  return (
    f"on {row['topology']}: {row['signal']} to {row['victim']} after "
    f"{row['after']:5.1f} s, ended in {row['ended']:4.1f} s with "
    f"{row['codes']}; resumed {row['resumed']}, updates {row['reported']}, "
    f"saved {row['saved']}"
  )


def losses_of(workdir):
  return [
    (line["step"], line["train/byol_loss"])
    for line in trainers.lines(workdir / "metrics.jsonl")
    if "train/byol_loss" in line
  ]


def summary(rows):
  """A line for each topology and signal."""
  kinds = collections.defaultdict(list)
  for row in rows:
    kinds[row["topology"], row["signal"]].append(row)
  for (topology, name), same in sorted(kinds.items()):
    ended = [row["ended"] for row in same]
    codes = sorted({str(row["codes"]) for row in same})
    yield (
      f"{topology} SIG{name} × {len(same)}: ended within "
      f"{statistics.median(ended):.1f} s (median), {max(ended):.1f} s; "
      f"{', '.join(codes)}"
    )


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--events", type=int, default=100)
  parser.add_argument("--updates", type=int, default=0)
  parser.add_argument("--topology", action="append")
  parser.add_argument("--seed", type=int, default=0)
  options = parser.parse_args()
  begun = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    # Every start compiles the same functions.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/compiled"
    soak = Soak(
      pathlib.Path(folder),
      updates=options.updates or max(40, 3 * options.events),
      topologies=options.topology or TOPOLOGIES,
      dtype="float64",
    )
    compared = soak.run(options.events, options.seed)
  for line in summary(soak.rows):
    print(line)
  for name, value in compared.items():
    print(f"{name}: {value}")
  print(f"minutes: {(time.monotonic() - begun) / 60:.1f}")
  for fault in soak.faults:
    print(f"FAULT: {fault}")
  print(f"{len(soak.faults)} faults" if soak.faults else "all as it must be")
  return bool(soak.faults)


if __name__ == "__main__":
  sys.exit(main())
