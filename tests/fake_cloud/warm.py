"""Runs Python on fake workers in forks of one process that has imported much.

Much of the time of a short run goes into importing TensorFlow, scikit-learn and
JAX. Here one process does that once; warm_python stands for the interpreter and
asks it for a fork, which then runs what that was called with: `-m MODULE ...`
of the folder that was shipped, or `-c SCRIPT`. Nothing of our own is imported
before. A fork has a session of its own, as a service of systemd has.
"""

import contextlib
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys

from tests.fake_cloud.rig import FAKE, ROOT

PYTHON = FAKE / "warm_python"
_LONGEST = 1 << 17  # bytes of a request


@contextlib.contextmanager
def server(path):
  """Serves at a socket while the block runs; `path` has 100 letters at most."""
  process = subprocess.Popen(
    [sys.executable, "-m", "tests.fake_cloud.warm", str(path)],
    cwd=ROOT,
    env={
      **os.environ,
      "OPENBLAS_NUM_THREADS": "1",  # threads must not be forked
      "TF_ENABLE_ONEDNN_OPTS": "0",  # as metrics_log.py sets it
    },
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert process.stdout.readline() == "ready\n"
    yield
  finally:
    process.kill()
    process.communicate()


def main():
  import clu.metric_writers  # noqa: F401
  import flax.linen  # noqa: F401
  import grain  # noqa: F401
  import jax  # noqa: F401
  import optax  # noqa: F401
  import orbax.checkpoint  # noqa: F401
  import sklearn.datasets
  import sklearn.manifold  # noqa: F401
  import tensorboard.summary  # noqa: F401

  assert len(os.listdir("/proc/self/task")) == 1, "threads cannot be forked"
  gc.freeze()
  signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
  listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
  listener.bind(sys.argv[1])
  listener.listen()
  print("ready", flush=True)
  while True:
    connection, _ = listener.accept()
    if not os.fork():
      listener.close()
      _serve(connection)
    connection.close()


def _serve(connection):
  """Forks what is asked for, tells its number, and then how it ended."""
  signal.signal(signal.SIGCHLD, signal.SIG_DFL)
  text, streams, _, _ = socket.recv_fds(connection, _LONGEST, 3)
  request = json.loads(text)
  pid = os.fork()
  if not pid:
    os.setsid()
    for number, stream in enumerate(streams):
      os.dup2(stream, number)
      os.close(stream)
    connection.close()
    _become(**request)
  connection.send(str(pid).encode())
  _, status = os.waitpid(pid, 0)
  with contextlib.suppress(BrokenPipeError):  # warm_python was killed
    connection.send(str(os.waitstatus_to_exitcode(status)).encode())
  os._exit(0)


def _become(words, folder, environment):
  """Runs the program in this process, which ends with it."""
  import jax

  os.environ.clear()
  os.environ.update(environment)
  os.chdir(folder)
  # JAX read the environment when it was imported.
  devices = int(environment["JAX_NUM_CPU_DEVICES"])
  jax.config.update("jax_num_cpu_devices", devices)
  sys.path[0] = folder
  for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
    del sys.modules[name]
  kind, program, *sys.argv[1:] = words
  if kind == "-m":
    runpy.run_module(program, run_name="__main__", alter_sys=True)
  else:
    exec(program, {"__name__": "__main__"})
  sys.exit()


if __name__ == "__main__":
  main()
