"""Answers calls of gcloud in forks of one process.

Most of the time of a call would go into importing what it needs, and the tests
of launch/ make thousands of them.
"""

import atexit
import contextlib
import fcntl
import functools
import gc
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys

from tests.fake_cloud.google import gcloud

ROOT = pathlib.Path(__file__).parents[3]
_LONGEST = 1 << 17  # bytes of a request


@functools.cache
def address():
  """Starts a server, which ends with this process; returns where it listens."""
  process = subprocess.Popen(
    [sys.executable, "-SE", "-m", "tests.fake_cloud.google.serving"],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    # What Ctrl-C ends may still have something to ask for.
    start_new_session=True,
  )
  atexit.register(process.communicate)
  name = process.stdout.readline().strip()
  assert name, "the server of gcloud did not start"
  return name


def main():
  import shutil  # noqa: F401 - argparse would import it in every fork

  gc.freeze()
  signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
  listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
  listener.bind("")  # the kernel chooses a name, and there is no file
  listener.listen()
  print(listener.getsockname()[1:].decode(), flush=True)
  # Its standard input ends when the process ends that started it.
  while sys.stdin not in select.select([sys.stdin, listener], [], [])[0]:
    connection, _ = listener.accept()
    if not os.fork():
      listener.close()
      try:
        _answer(connection)
      except Exception:
        sys.excepthook(*sys.exc_info())
      finally:
        os._exit(0)
    connection.close()


def _answer(connection):
  """Runs what is asked for, in this process, and tells its exit status."""
  signal.signal(signal.SIGCHLD, signal.SIG_DFL)
  request, streams, flags, _ = socket.recv_fds(connection, _LONGEST, 2)
  _end_with_who_asks(connection)
  for number, stream in enumerate(streams, 1):
    os.dup2(stream, number)
  assert not flags & socket.MSG_TRUNC, f"{_LONGEST} bytes were expected at most"
  folder, cwd, *argv = os.fsdecode(request).split("\0")
  os.environ["FAKE_CLOUD"] = folder
  os.chdir(cwd)
  try:
    status = gcloud.main(argv)
  except SystemExit as end:  # by argparse and flags.py, with a number
    status = end.code
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError):  # nobody reads it any more
      stream.flush()
  connection.send(bytes([status]))


def _end_with_who_asks(connection):
  """Has this process ended by SIGIO when the other side of a socket is closed.

  A gcloud that is killed has no effect afterwards.
  """
  fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
  flags = fcntl.fcntl(connection, fcntl.F_GETFL)
  fcntl.fcntl(connection, fcntl.F_SETFL, flags | os.O_ASYNC)
  with contextlib.suppress(BlockingIOError):  # it may be closed already
    connection.recv(1, socket.MSG_DONTWAIT)
    os._exit(0)


if __name__ == "__main__":
  main()
