"""Kills a run with SIGKILL at random moments and compares it with a whole one.

Command: python tests/kill_run.py --kills=10 --workers=1 --workers=2

One run is left alone; the other is killed again and again, at a random moment
after its start, and then let finish. Both must end with the same bits in every
array of the state, and must have seen the same views in every update.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import orbax.checkpoint as ocp

ROOT = pathlib.Path(__file__).parents[1]
UPDATES = 180
FLAGS = (
  f"--config={ROOT}/configs/byol_digits.py",
  "--config.batch_size=64",
  "--config.epochs=8.05",  # 180 updates of 64 of the 1,437 digits
  "--config.warmup_epochs=1",
  "--config.model.encoder.width=0.25",
  "--config.augment.size=8",
  "--config.evaluation.every_steps=70",
  "--config.report.view_hashes=true",
  "--config.checkpoint.every_steps=15",
)


def start(workdir, workers):
  """Starts the run as a process group of its own, on one CPU device."""
  log = open(f"{workdir}.log", "ab")  # noqa: SIM115 - the child holds it
  command = [sys.executable, "-m", "byol_flax.main", "train", *FLAGS]
  command += [f"--workdir={workdir}", f"--config.loader.num_workers={workers}"]
  environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
  return subprocess.Popen(
    command, cwd=ROOT, env=environment, stdout=log, stderr=log
  )


def finish(process, workdir):
  if process.wait(timeout=600) != 0:
    raise RuntimeError(pathlib.Path(f"{workdir}.log").read_text()[-2000:])


def views_seen(workdir):
  """Update -> digest of its views; an update run twice must see the same."""
  seen = {}
  text = (workdir / "view_hashes-0.jsonl").read_text()
  for line in text.splitlines():
    try:
      entry = json.loads(line)
    except ValueError:
      continue  # torn by a kill
    before = seen.setdefault(entry["step"], entry["digest"])
    assert before == entry["digest"], (
      f"update {entry['step']} changed its views"
    )
  return {step: seen[step] for step in sorted(seen) if step <= UPDATES}


def final_state(workdir):
  """All arrays of the last checkpoint, by path."""
  folder = workdir / "checkpoints" / str(UPDATES) / "state"
  tree = ocp.StandardCheckpointer().restore(folder)
  found = {}

  def visit(node, path):
    if isinstance(node, dict):
      for name, child in node.items():
        visit(child, f"{path}/{name}")
    elif isinstance(node, list):
      for i, child in enumerate(node):
        visit(child, f"{path}/{i}")
    elif node is not None:
      found[path] = np.asarray(node)

  visit(tree, "")
  return found


def orphans():
  """Worker processes that lost their trainer."""
  listing = subprocess.run(
    ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
  ).stdout
  return [
    line
    for line in listing.splitlines()[1:]
    if "multiprocessing.spawn" in line and line.split()[1] == "1"
  ]


def last_save(workdir):
  """Step of the newest committed checkpoint, 0 without one."""
  names = [path.name for path in (workdir / "checkpoints").glob("*")]
  return max((int(name) for name in names if name.isdigit()), default=0)


def last_view(workdir):
  """The last update whose views were read, 0 without one."""
  path = workdir / "view_hashes-0.jsonl"
  return max(views_seen(workdir), default=0) if path.exists() else 0


def kill_at_random(process, workdir, rng, kills_left):
  """Kills the run in its start-up or some updates later; returns a sentence."""
  saved = last_save(workdir)
  begun = time.monotonic()
  if rng.random() < 0.3:
    wait, until = rng.uniform(0.2, 8), UPDATES
  else:
    share = 2 * (UPDATES - saved) / (kills_left + 1)
    until = last_view(workdir) + rng.uniform(0, share)
    wait, until = 120, min(until, UPDATES - 5)
  while time.monotonic() < begun + wait and last_view(workdir) < until:
    if process.poll() is not None:
      raise RuntimeError(pathlib.Path(f"{workdir}.log").read_text()[-2000:])
    time.sleep(rng.uniform(0, 0.05))
  process.send_signal(signal.SIGKILL)
  process.wait()
  return (
    f"after {time.monotonic() - begun:4.1f} s: resumed from {saved:3}, views "
    f"read up to {last_view(workdir):3}, saved up to {last_save(workdir):3}"
  )


def compare(folder, *, kills, workers, whole_workers, seed, say=print):
  """Kills one run `kills` times; returns what was compared, or raises."""
  whole, killed = folder / "whole", folder / f"killed-{workers}"
  if not whole.exists():
    finish(start(whole, whole_workers), whole)
  rng = random.Random(seed)
  for done in range(kills):
    process = start(killed, workers)
    say(
      f"kill {done + 1:2} {kill_at_random(process, killed, rng, kills - done)}",
      flush=True,
    )
  process = start(killed, workers)
  finish(process, killed)
  time.sleep(3)  # they look for their parent once a second
  assert not orphans(), "worker processes were left behind"

  a, b = final_state(whole), final_state(killed)
  assert a.keys() == b.keys()
  different = [path for path in a if a[path].tobytes() != b[path].tobytes()]
  assert not different, f"{len(different)} arrays differ: {different[:5]}"
  views_a, views_b = views_seen(whole), views_seen(killed)
  assert sorted(views_a) == list(range(1, UPDATES + 1))
  assert views_a == views_b
  return {
    "kills": kills,
    "workers": f"{whole_workers} whole, {workers} killed",
    "equal arrays": len(a),
    "equal view digests": len(views_a),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kills", type=int, default=10)
  parser.add_argument("--workers", type=int, action="append")
  parser.add_argument("--seed", type=int, default=0)
  options = parser.parse_args()
  counts = options.workers or [1]
  with tempfile.TemporaryDirectory() as folder:
    for workers in counts:
      result = compare(
        pathlib.Path(folder),
        kills=options.kills,
        workers=workers,
        whole_workers=counts[0],
        seed=options.seed + workers,
      )
      print(json.dumps(result), flush=True)


if __name__ == "__main__":
  main()
