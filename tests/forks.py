"""Runs `byol` in forks of one process that has imported what commands import.

For tests of what a command does, not of how it starts: TensorFlow, JAX and the
rest take about half of the time of a short run, and each process of xdist pays
for them once. Nothing but imports happens before the fork, so that a command
meets JAX, its handlers of signals and its threads as untouched as in a process
of its own.
"""

import atexit
import functools
import gc
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 600  # then a command that hangs is killed


def byol(*arguments, cwd=ROOT, **environment):
  """What `subprocess.run` returns of the command, on one CPU device."""
  with tempfile.TemporaryDirectory() as folder:
    streams = [pathlib.Path(folder, name) for name in ("stdout", "stderr")]
    run = start(*arguments, streams=streams, cwd=cwd, **environment)
    run.wait()
    texts = [path.read_text() for path in streams]
  return subprocess.CompletedProcess(run.args, run.returncode, *texts)


def start(
  *arguments, streams, cwd=ROOT, devices=1, float64=False, at=(), **environment
):
  """Begins the command and returns at once; see `Fork`.

  Args:
    *arguments: of `byol`.
    streams: files to which standard output and standard error are appended.
    cwd: the folder in which it runs.
    devices: how many CPU devices it has.
    float64: whether JAX computes in float64 where it is told to.
    at: where signals reach it; see signal_at.py.
    **environment: variables besides those of this process.
  """
  words = ["byol", *map(str, arguments)]
  pid = _asked(
    words=words,
    folder=str(cwd),
    environment=environment,
    streams=[str(path) for path in streams],
    devices=devices,
    float64=float64,
    at=list(at),
  )
  return Fork(words, pid)


class Fork:
  """A command under way, with the methods of `subprocess.Popen`."""

  def __init__(self, args, pid):
    self.args, self.pid, self.returncode = args, pid, None

  def poll(self):
    if self.returncode is None:
      self.returncode = _asked(pid=self.pid)
    return self.returncode

  def wait(self, timeout=SECONDS):
    deadline = time.monotonic() + timeout
    while self.poll() is None:
      if time.monotonic() > deadline:
        raise subprocess.TimeoutExpired(self.args, timeout)
      time.sleep(0.01)
    return self.returncode

  def send_signal(self, number):
    # Until it was polled the number is not given to another process.
    if self.poll() is None:
      os.kill(self.pid, number)

  def kill(self):
    self.send_signal(signal.SIGKILL)


_LOCK = threading.Lock()


def _asked(**request):
  """The server's answer."""
  with _LOCK:
    server = _server()
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


@functools.cache
def _server():
  """The process that forks; it ends with this one."""
  server = subprocess.Popen(
    [sys.executable, "-m", "tests.forks"],
    cwd=ROOT,
    env={
      **os.environ,
      "JAX_NUM_CPU_DEVICES": "1",
      "OPENBLAS_NUM_THREADS": "1",  # threads must not be forked
      "TF_ENABLE_ONEDNN_OPTS": "0",  # as metrics_log.py sets it
    },
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  atexit.register(server.communicate)
  return server


def main():
  # What processes that write metrics and draw curves import on the way.
  import clu.metric_writers  # noqa: F401
  import matplotlib.pyplot  # noqa: F401
  import sklearn.datasets  # noqa: F401
  import tensorboard.summary  # noqa: F401
  from numba.core.registry import cpu_target

  from byol_flax.evaluation import suite  # noqa: F401
  from byol_flax.pretrain import origin, train  # noqa: F401

  # Numba imports two hundred modules when the first function is called.
  cpu_target.typing_context.refresh()
  cpu_target.target_context.refresh()
  assert len(os.listdir("/proc/self/task")) == 1, "threads cannot be forked"
  gc.freeze()
  gc.set_threshold(20_000)  # as in conftest.py, and for its reason
  for line in sys.stdin:
    request = json.loads(line)
    if "pid" in request:
      pid, status = os.waitpid(request["pid"], os.WNOHANG)
      answer = os.waitstatus_to_exitcode(status) if pid else None
    else:
      answer = os.fork()
      if not answer:
        _become(**request)
    print(json.dumps(answer), flush=True)


def _become(words, folder, environment, streams, devices, float64, at):
  """Runs the command in this process, which ends with it."""
  import jax

  from byol_flax import main as command
  from tests import signal_at

  signal.alarm(SECONDS)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  for number, path in enumerate(streams, 1):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
  os.chdir(folder)
  os.environ.update(environment)
  # JAX read the environment when it was imported.
  jax.config.update("jax_num_cpu_devices", devices)
  jax.config.update("jax_enable_x64", float64)
  sys.argv = words
  for place in at:
    signal_at.arrange(place)
  command.run()


if __name__ == "__main__":
  main()
