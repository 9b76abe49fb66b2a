"""Starts `byol` as several processes with simulated devices."""

import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

from tests import forks

ROOT = pathlib.Path(__file__).parents[1]
LEAST_SCALE = 1e-3


def free_ports():
  """The first of two neighbouring free ports.

  They are used a moment later. So each process of xdist has ports of its own,
  of those that the kernel gives to nobody by itself.
  """
  rng = random.Random()
  worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 12
  first = 20_000 + 1_000 * worker
  while True:
    port = rng.randrange(first, first + 1_000, 2)
    try:
      with (
        socket.create_server(("127.0.0.1", port)),
        socket.create_server(("127.0.0.1", port + 1)),
      ):
        return port
    except OSError:
      continue


def _fresh(*words, streams, devices, float64, at):
  """As `forks.start`, with a Python of its own."""
  module = "tests.signal_at" if at else "byol_flax.main"
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": str(devices),
    "JAX_ENABLE_X64": str(int(float64)),
  }
  with open(streams[0], "ab") as log:
    return subprocess.Popen(
      [
        sys.executable,
        "-m",
        module,
        *words,
        *(f"--at={place}" for place in at),
      ],
      cwd=ROOT,
      env=environment,
      stdout=log,
      stderr=log,
    )


class Trainers:
  """The processes of one run, their logs in `<workdir>.<index>.log`."""

  def __init__(
    self,
    workdir,
    flags,
    *,
    processes,
    devices,
    places=None,
    float64=False,
    command="train",
    into="workdir",
    fresh=False,
  ):
    """Starts them at once.

    Args:
      workdir: of the run, or what else it writes into.
      flags: of the command.
      processes: how many.
      devices: of each.
      places: index -> where that process gets SIGTERM, see signal_at.
      float64: whether they may compute in float64.
      command: of `byol`.
      into: name of the flag for `workdir`.
      fresh: whether each starts a Python of its own, as people do.
    """
    self.workdir = pathlib.Path(workdir)
    coordinator = f"127.0.0.1:{free_ports()}"
    self.processes = []
    for index in range(processes):
      words = [command, *flags, f"--{into}={workdir}"]
      if processes > 1:
        words += [
          f"--coordinator={coordinator}",
          f"--process-count={processes}",
          f"--process-index={index}",
        ]
      begin = _fresh if fresh else forks.start
      log = f"{workdir}.{index}.log"
      pathlib.Path(log).touch()  # it is read before a slow child opens it
      self.processes.append(
        begin(
          *words,
          streams=[log, log],
          devices=devices,
          float64=float64,
          at=[places[index]] if index in (places or {}) else (),
        )
      )

  def signal(self, index, number):
    """Sends a signal to one process."""
    self.processes[index].send_signal(number)

  def running(self):
    return all(process.poll() is None for process in self.processes)

  def wait(self, seconds):
    """Exit codes, in order; raises with the logs' ends after `seconds`."""
    deadline = time.monotonic() + seconds
    try:
      return [
        process.wait(max(0.1, deadline - time.monotonic()))
        for process in self.processes
      ]
    except subprocess.TimeoutExpired:
      self.kill()
      raise RuntimeError(f"hung for {seconds} s:\n{self.logs()}") from None

  def finish(self, seconds=600):
    """Waits for a run that must succeed."""
    codes = self.wait(seconds)
    assert set(codes) == {0}, f"exit codes {codes}\n{self.logs()}"

  def kill(self):
    for process in self.processes:
      process.kill()
      process.wait()

  def log(self, index):
    """What the process said, without Gloo's chatter."""
    text = pathlib.Path(f"{self.workdir}.{index}.log").read_text()
    return re.sub(r"\[Gloo\].*: \d+\n?", "", text)

  def logs(self):
    return "\n".join(
      f"--- process {index}\n{self.log(index)[-1500:]}"
      for index in range(len(self.processes))
    )


def lines(path):
  """The whole lines of a JSONL file; a kill may have torn the last one."""
  found = []
  for line in path.read_text().splitlines() if path.exists() else ():
    try:
      found.append(json.loads(line))
    except ValueError:
      continue
  return found


def saves(workdir):
  """Labels of the committed checkpoints, in order."""
  folder = pathlib.Path(workdir) / "checkpoints"
  return sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())


def last_update(workdir):
  """The last update that was reported, 0 without one."""
  reported = lines(pathlib.Path(workdir) / "metrics.jsonl")
  return reported[-1]["step"] if reported else 0


def views_seen(workdir, updates):
  """Update -> digest of its global batch; an update run twice sees the same.

  Each start logs the rows of its own processes; the digests of all rows of an
  update add up to the same sum however many processes read them.
  """
  parts = {}
  for path in sorted(pathlib.Path(workdir).glob("view_hashes-*.jsonl")):
    for line in lines(path):
      rows = parts.setdefault((line["step"], line["processes"]), {})
      before = rows.setdefault(path.name, line["digest"])
      assert before == line["digest"], f"update {line['step']} changed a view"
  seen = {}
  for (step, count), rows in parts.items():
    if step <= updates and len(rows) == count:
      total = sum(int(digest, 16) for digest in rows.values()) % 2**64
      assert seen.setdefault(step, total) == total, f"update {step} differs"
  return {step: seen[step] for step in sorted(seen)}


def state_of(workdir, step):
  """All arrays of a checkpoint, by path."""
  folder = pathlib.Path(workdir) / "checkpoints" / str(step) / "state"
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

  # As NumPy arrays, whatever devices they were saved from.
  checkpointer = ocp.PyTreeCheckpointer()
  kinds = jax.tree.map(
    lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
    checkpointer.metadata(folder).item_metadata.tree,
  )
  visit(checkpointer.restore(folder, restore_args=kinds), "")
  return found


def by_path(tree):
  """The arrays of a tree as `state_of` gives those of a checkpoint."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def largest_difference(a, b):
  """Of two states as `state_of` gives them, relative to each array's largest.

  Biases before a BatchNorm have a gradient of zero and hold nothing but
  rounding: hence the least scale.
  """
  assert a.keys() == b.keys()
  return max(
    np.abs(a[path] - value).max() / max(np.abs(value).max(), LEAST_SCALE)
    for path, value in b.items()
  )


def orphans():
  """Input workers that lost their trainer."""
  listing = subprocess.run(
    ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
  ).stdout
  return [
    line
    for line in listing.splitlines()[1:]
    if "multiprocessing.spawn" in line and line.split()[1] == "1"
  ]


NAMES = {signal.SIGTERM: "TERM", signal.SIGKILL: "KILL"}
