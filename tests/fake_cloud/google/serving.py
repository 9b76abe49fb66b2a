"""Answers calls of gcloud in forks of one process.

To start Python and to import what a call needs takes ten times as long as the
call itself, and the tests of launch/ make thousands of them.
"""

import atexit
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
  """Where the server of this process listens, which ends with the process."""
  process = subprocess.Popen(
    [sys.executable, "-SE", "-m", "tests.fake_cloud.google.serving"],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  atexit.register(process.communicate)
  return process.stdout.readline().strip()


def main():
  gc.freeze()
  signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
  listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
  name = f"fake-gcloud-{os.getpid()}"
  listener.bind("\0" + name)  # no file, and so nothing to remove
  listener.listen()
  print(name, flush=True)
  # Its standard input ends when the process ends that started it.
  while sys.stdin not in select.select([sys.stdin, listener], [], [])[0]:
    connection, _ = listener.accept()
    if not os.fork():
      _answer(connection)
    connection.close()


def _answer(connection):
  """Runs what is asked for, in this process, and tells its exit status."""
  request, streams, _, _ = socket.recv_fds(connection, _LONGEST, 2)
  _end_with_who_asks(connection)
  for number, stream in enumerate(streams, 1):
    os.dup2(stream, number)
  folder, cwd, *argv = os.fsdecode(request).split("\0")
  os.environ["FAKE_CLOUD"] = folder
  os.chdir(cwd)
  status = 1
  try:
    status = gcloud.main(argv)
  except SystemExit as end:
    status = end.code
  except Exception:
    sys.excepthook(*sys.exc_info())
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(bytes([status]))
    os._exit(0)


def _end_with_who_asks(connection):
  """Has this process ended by SIGIO when the other side of a socket is closed.

  A gcloud that is killed has no effect afterwards.
  """
  fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
  flags = fcntl.fcntl(connection, fcntl.F_GETFL)
  fcntl.fcntl(connection, fcntl.F_SETFL, flags | os.O_ASYNC)
  try:  # it may be closed already
    connection.recv(1, socket.MSG_DONTWAIT)
    os._exit(0)
  except BlockingIOError:
    pass


if __name__ == "__main__":
  main()
