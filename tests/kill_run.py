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


def living_children(pid):
  """Processes whose parent was `pid`, or that were left to init by it."""
  listing = subprocess.run(
    ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
  ).stdout
  return [
    line
    for line in listing.splitlines()[1:]
    if "multiprocessing" in line and line.split()[1] in (str(pid), "1")
  ]


def compare(folder, *, kills, workers, whole_workers, seed, say=print):
  """Kills one run `kills` times; returns what was compared, or raises."""
  whole, killed = folder / "whole", folder / f"killed-{workers}"
  if not whole.exists():
    process = start(whole, whole_workers)
    begun = time.monotonic()
    finish(process, whole)
    (folder / "seconds").write_text(str(time.monotonic() - begun))
  seconds = float((folder / "seconds").read_text())
  rng = random.Random(seed)
  moments = []
  while len(moments) < kills:
    process = start(killed, workers)
    # From the imports to beyond the first save after a resume.
    moment = rng.uniform(0.05, 0.9) * seconds
    try:
      process.wait(timeout=moment)
      say(
        f"run ended by itself before kill {len(moments) + 1}: too few updates"
      )
      break
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
      process.wait()
    saved = sorted(
      int(p.name)
      for p in (killed / "checkpoints").glob("[0-9]*")
      if p.name.isdigit()
    )
    seen = (
      max(views_seen(killed), default=0)
      if killed.exists() and (killed / "view_hashes-0.jsonl").exists()
      else 0
    )
    moments.append(moment)
    say(
      f"kill {len(moments):2} after {moment:5.1f} s: last save "
      f"{saved[-1] if saved else 0:3}, views read up to update {seen}"
    )
  process = start(killed, workers)
  finish(process, killed)
  time.sleep(1)
  assert not living_children(process.pid), "worker processes were left behind"

  a, b = final_state(whole), final_state(killed)
  assert a.keys() == b.keys()
  different = [path for path in a if a[path].tobytes() != b[path].tobytes()]
  assert not different, f"{len(different)} arrays differ: {different[:5]}"
  views_a, views_b = views_seen(whole), views_seen(killed)
  assert sorted(views_a) == list(range(1, UPDATES + 1))
  assert views_a == views_b
  return {
    "kills": len(moments),
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
