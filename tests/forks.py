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

ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 300  # then a command that hangs is killed


def byol(*arguments, cwd=ROOT, **environment):
  """What `subprocess.run` returns of the command, on one CPU device."""
  server = _server()
  words = ["byol", *map(str, arguments)]
  with tempfile.TemporaryDirectory() as folder:
    streams = [pathlib.Path(folder, name) for name in ("stdout", "stderr")]
    request = [words, str(cwd), environment, [str(path) for path in streams]]
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    status = int(server.stdout.readline())
    texts = [path.read_text() for path in streams]
  return subprocess.CompletedProcess(words, status, *texts)


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
  import sklearn.datasets  # noqa: F401

  from byol_flax import main as command
  from byol_flax.evaluation import few_label, online  # noqa: F401
  from byol_flax.pretrain import origin, train  # noqa: F401

  assert len(os.listdir("/proc/self/task")) == 1, "threads cannot be forked"
  gc.freeze()
  for line in sys.stdin:
    words, folder, environment, streams = json.loads(line)
    pid = os.fork()
    if not pid:
      signal.alarm(SECONDS)
      os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
      for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
      os.chdir(folder)
      os.environ.update(environment)
      sys.argv = words
      command.run()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
  main()
