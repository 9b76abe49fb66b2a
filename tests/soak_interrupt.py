"""Ctrl-C at random moments of a run, from its start to its last update.

Command: python -m tests.soak_interrupt --events=200

Each event starts `byol train` on digits as a terminal does, as a process group
of its own, and sends SIGINT to the group at a moment drawn evenly from the time
that a whole run takes, measured before. Half of the runs find their
compilations in a cache, every second pair has an input worker. Checked each
time: status 130 within two seconds (--within: more on a machine that is busy),
the one sentence after the lines of progress, no traceback or warning, and no
process left behind. Ends with 0 if all were so, else with 1.
"""

import argparse
import concurrent.futures
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

from tests import processes, soak, trainers

UPDATES = 12
# Before its first line of ours Python answers SIGINT by its own means. That
# takes less than this, or longer where other work keeps the machine busy.
EARLIEST = 0.1
SENTENCE = "byol: interrupted; the same command goes on from the last"
# What no run may say that was interrupted.
FAULTS = re.compile("Traceback|Exception|Error|Warning|Interrupt|core dumped")
# What a run is at, once it has said so.
PHASES = (
  ("", "importing, reading data"),
  (" images of ", "setting up"),
  (" parameters in ", "compiling"),
  ("first update done", "updating, saving, evaluating"),
  ("Done: ", "done"),
)


def start(workdir, log, *, cache, workers):
  """Starts a run in a group of its own, with SIGINT as a terminal leaves it."""
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "1",
    # Half of the time of a compilation, and nothing of what is tested.
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
  }
  command = [sys.executable, "-m", "byol_flax.main", "train"]
  command += [*soak.flags(UPDATES), "--config.warmup_epochs=0.1"]
  command += [f"--workdir={workdir}", f"--compilation-cache={cache}"]
  return subprocess.Popen(
    [*command, f"--config.loader.num_workers={workers}"],
    cwd=trainers.ROOT,
    env=environment,
    stdout=log,
    stderr=log,
    process_group=0,
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
  )


def strike(folder, share, length, within, **given):
  """One run, interrupted after that share of its length; a row."""
  log = pathlib.Path(f"{folder}.log")
  with log.open("wb") as file:
    begun = time.monotonic()
    run = start(folder, file, **given)
    # The thread that hears Ctrl-C is the first besides Python's own.
    while len(os.listdir(f"/proc/{run.pid}/task")) < 2 and run.poll() is None:
      time.sleep(0.001)
    moment = begun + EARLIEST + share * (length - EARLIEST)
    time.sleep(max(0, moment - time.monotonic()))
    group = [run.pid, *processes.children(run.pid)]
    struck = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    try:
      code = run.wait(30)
    except subprocess.TimeoutExpired:
      code = "none"
    ended = time.monotonic()
  while any(map(processes.lives, group)) and time.monotonic() < ended + 10:
    time.sleep(0.05)
  left = [processes.command(pid) for pid in group if processes.lives(pid)]
  text = log.read_text()
  words = [line for line in text.splitlines() if line.startswith("byol: ")]
  told = len(words) == 1 and text.splitlines()[-1].startswith(SENTENCE)
  # A run that is over, all but its last lines, may end by itself; and Python
  # gives the signal back to the kernel as its last act, which shells report
  # as 130 too.
  over = code in (0, -signal.SIGINT) and not words and "Done: " in text
  return {
    "phase": [name for sign, name in PHASES if sign in text][-1],
    "moment": struck - begun,
    "seconds": ended - struck,
    "code": code,
    "good": ((code == 130 and told) or over)
    and not FAULTS.search(text)
    and ended - struck < within
    and not left,
    "left": left,
    "text": text,
  }


def soak_interrupts(folder, *, events, at_once, within, seed, say=print):
  """Strikes so often, prints what went wrong, returns rows."""
  cache = folder / "cache"
  lengths = {}
  # The second finds what the first compiled.
  for name in (cache, cache, "none"):
    begun = time.monotonic()
    with (folder / "whole.log").open("wb") as log:
      code = start(folder / "whole", log, cache=name, workers=1).wait(600)
    assert code == 0, (folder / "whole.log").read_text()
    lengths[name] = time.monotonic() - begun
    subprocess.run(["rm", "-r", folder / "whole"], check=True)
  say(f"a whole run takes {[f'{x:.1f} s' for x in lengths.values()]}")
  rng = random.Random(seed)

  def event(number):
    cached = (cache, "none")[number % 2]
    row = strike(
      folder / str(number),
      rng.random(),
      lengths[cached],
      within,
      cache=cached,
      workers=number // 2 % 2,
    )
    subprocess.run(["rm", "-rf", folder / str(number)], check=True)
    if not row["good"]:
      say(f"--- event {number}: {row}\n{row['text']}", flush=True)
    return row

  with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
    return list(pool.map(event, range(events)))


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--events", type=int, default=200)
  parser.add_argument("--at-once", type=int, default=2, help="runs at a time")
  parser.add_argument("--within", type=float, default=2.0, help="seconds")
  parser.add_argument("--seed", type=int, default=0)
  options = parser.parse_args()
  begun = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    rows = soak_interrupts(
      pathlib.Path(folder),
      events=options.events,
      at_once=options.at_once,
      within=options.within,
      seed=options.seed,
    )
  print(f"{'run was at':30} events  first..last moment  longest end  status")
  for _, phase in PHASES:
    group = [row for row in rows if row["phase"] == phase]
    if group:
      moments = [row["moment"] for row in group]
      print(
        f"{phase:30} {len(group):6}  {min(moments):6.2f}..{max(moments):5.1f} s"
        f"    {max(row['seconds'] for row in group):6.2f} s     "
        f"{sorted({row['code'] for row in group}, key=str)}"
      )
  bad = [row for row in rows if not row["good"]]
  print(
    f"{len(rows)} interrupts, {len(bad)} not as promised, "
    f"{(time.monotonic() - begun) / 60:.1f} minutes"
  )
  sys.exit(bool(bad))


if __name__ == "__main__":
  main()
