"""Whether every process of a run is there, told in one sentence when not.

JAX ends a process when another one is lost, but without a name if that one
never came, and with a stack trace. Here process 0 listens, and every other
process keeps one connection to it from the start of the run to its end; the
kernel closes it when a process is killed, and silence tells of a lost host. All
processes then end with the same sentence and exit code.

Lines of JSON on a connection, both ways: "hello" and "go" while the processes
gather, then "at" every second, "stop" (a sentence and an exit code: end now),
and "bye" before an orderly end.
"""

import contextlib
import dataclasses
import ipaddress
import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from input_pipeline.errors import RunError

# What a process can be at within one update, in this order.
ACTIVITIES = (
  "setting up",
  "waiting for input",
  "updating",
  "saving",
  "evaluating",
  "ending",
)
_BEAT_SECONDS = 1.0
_LONGEST_LINE = 65536
_RESUME = "This run ends here; the same command resumes it."


@dataclasses.dataclass(frozen=True)
class Deadlines:
  """How long to wait for other processes, in seconds.

  Attributes:
    start_seconds: for all to come.
    silence_seconds: for a sign of life.
    stall_seconds: for any process to get on with anything.
  """

  start_seconds: float
  silence_seconds: float
  stall_seconds: float


@dataclasses.dataclass
class _Peer:
  """The other end of a connection."""

  index: int
  name: str
  connection: socket.socket
  received: bytes = b""
  at: tuple[int, int, int] = (0, 0, 0)
  heard: float = dataclasses.field(default_factory=time.monotonic)
  moved: float = dataclasses.field(default_factory=time.monotonic)
  left: bool = False

  def send(self, message: dict[str, Any]) -> None:
    # A dead connection is noticed where it is read.
    with contextlib.suppress(OSError):
      self.connection.sendall(json.dumps(message).encode() + b"\n")

  def receive(self) -> list[dict[str, Any]] | None:
    """Whole messages that have come; None when the other end is closed."""
    try:
      data = self.connection.recv(_LONGEST_LINE)
    except OSError:
      return None
    if not data or len(self.received) > _LONGEST_LINE:
      return None
    *lines, self.received = (self.received + data).split(b"\n")
    self.heard = time.monotonic()
    try:
      messages = [json.loads(line) for line in lines]
    except ValueError:
      return None
    return messages if all(isinstance(x, dict) for x in messages) else None


class Peers:
  """The other processes of this run, watched by a thread."""

  def __init__(
    self,
    address: tuple[str, int],
    *,
    index: int,
    count: int,
    deadlines: Deadlines,
    end: Callable[[str, int], NoReturn] | None = None,
  ) -> None:
    """Returns when all processes are there.

    Args:
      address: where process 0 listens.
      index: of this process.
      count: of processes, more than one.
      deadlines: how long to wait.
      end: ends this process with a sentence and an exit code.

    Raises:
      RunError: names the processes that did not come.
    """
    self._index, self._count, self._deadlines = index, count, deadlines
    self._end = end or _end_process
    self._at = (0, 0, 0)
    self._moved = time.monotonic()
    self._closing = threading.Event()
    if index == 0:
      with _listen(address) as listener:
        self._peers = self._gather(listener)
    else:
      self._peers = [self._join(address)]
    self._thread = threading.Thread(target=self._watch, daemon=True)
    self._thread.start()

  def at(self, step: int, activity: str) -> None:
    """Says what this process is at: one of ACTIVITIES, for update `step`."""
    self._at = (step, ACTIVITIES.index(activity), 0)
    self._moved = time.monotonic()

  def part_done(self) -> None:
    """Says that a part of it is done, such as a batch of an evaluation."""
    step, activity, parts = self._at
    self._at = (step, activity, parts + 1)
    self._moved = time.monotonic()

  def fail(self, sentence: str, code: int) -> NoReturn:
    """Ends this process, and tells the others so that they end too.

    Not by an exception to the end of the program: JAX would wait there for
    processes that are about to end themselves.
    """
    told = sentence
    if self._index == 0:
      told = f"{self._name_of(0, socket.gethostname())} ended: {sentence}"
    self._closing.set()
    for peer in self._peers:
      peer.send({"stop": told, "code": code})
    time.sleep(_BEAT_SECONDS)  # the last words must leave before the process
    self._end(sentence, code)

  def close(self) -> None:
    """Leaves in order; the others go on."""
    self._closing.set()
    for peer in self._peers:
      peer.send({"bye": self._index})
    self._thread.join()
    for peer in self._peers:
      peer.connection.close()

  def _name_of(self, index: int, where: str) -> str:
    return f"process {index} of {self._count} ({where})"

  def _gather(self, listener: socket.socket) -> list[_Peer]:
    """Process 0: waits until every other process said hello."""
    come: dict[int, _Peer] = {}
    deadline = time.monotonic() + self._deadlines.start_seconds
    while len(come) < self._count - 1:
      try:
        listener.settimeout(max(0.01, deadline - time.monotonic()))
        connection, _ = listener.accept()
      except TimeoutError:
        missing = sorted(set(range(1, self._count)) - come.keys())
        sentence = (
          f"{_listing(missing)} of {self._count} did not come within "
          f"{self._deadlines.start_seconds:g} s."
        )
        for peer in come.values():
          peer.send({"stop": sentence, "code": 1})
        raise RunError(f"{sentence} {_RESUME}") from None
      newcomer = self._read_hello(connection)
      if newcomer:
        come[newcomer.index] = newcomer
    for peer in come.values():
      peer.send({"go": True})
    return list(come.values())

  def _read_hello(self, connection: socket.socket) -> _Peer | None:
    """The process that says hello, or None for a stranger."""
    connection.settimeout(_BEAT_SECONDS)
    peer = _Peer(-1, "", connection)
    hello = (peer.receive() or [{}])[0]
    connection.settimeout(None)
    index = hello.get("hello")
    if not isinstance(index, int) or not 0 < index < self._count:
      connection.close()
      return None
    if hello.get("count") != self._count:
      peer.send(
        {
          "stop": f"Process {index} was started as one of "
          f"{hello.get('count')}, process 0 as one of {self._count}; "
          "--process-count must be the same everywhere.",
          "code": 2,
        }
      )
      connection.close()
      return None
    peer.index = index
    peer.name = self._name_of(index, str(hello.get("where"))[:100])
    return peer

  def _join(self, address: tuple[str, int]) -> _Peer:
    """Other processes: reach process 0 and wait until it says go."""
    shown = f"{address[0]}:{address[1]}"
    deadline = time.monotonic() + self._deadlines.start_seconds
    connection = None
    while connection is None:
      try:
        connection = socket.create_connection(address, timeout=_BEAT_SECONDS)
      except OSError as error:
        if time.monotonic() > deadline:
          raise RunError(
            f"Process 0 of {self._count} did not answer at {shown} within "
            f"{self._deadlines.start_seconds:g} s ({error}). {_RESUME}"
          ) from None
        time.sleep(0.1)
    peer = _Peer(0, self._name_of(0, shown), connection)
    peer.send(
      {
        "hello": self._index,
        "count": self._count,
        "where": f"{socket.gethostname()}, pid {os.getpid()}",
      }
    )
    # Process 0 gives up first, and its sentence names those who are missing.
    connection.settimeout(self._deadlines.start_seconds + 10)
    messages = peer.receive()
    connection.settimeout(None)
    if messages and "stop" in messages[0]:
      self._end(str(messages[0]["stop"]), int(messages[0].get("code", 1)))
    if not messages:
      raise RunError(f"{peer.name} was lost while gathering. {_RESUME}")
    return peer

  def _watch(self) -> None:
    with selectors.DefaultSelector() as selector:
      for peer in self._peers:
        selector.register(peer.connection, selectors.EVENT_READ, peer)
      next_beat = 0.0
      while not self._closing.is_set():
        for key, _ in selector.select(timeout=_BEAT_SECONDS / 4):
          if self._hear(key.data):
            selector.unregister(key.fileobj)
        now = time.monotonic()
        if now >= next_beat:
          next_beat = now + _BEAT_SECONDS
          for peer in self._peers:
            peer.send({"at": self._at})
          self._check(now)

  def _hear(self, peer: _Peer) -> bool:
    """Takes what came from `peer`; True when it left in order."""
    messages = peer.receive()
    try:
      if messages is None:
        raise ValueError
      for message in messages:
        self._take(peer, message)
    except (KeyError, TypeError, ValueError):
      # Closed, or nonsense, which no living process of ours would send.
      if not self._closing.is_set():
        self._stop(f"{peer.name} was lost, {_words(peer.at)}.", 1)
      return True
    return peer.left

  def _take(self, peer: _Peer, message: dict[str, Any]) -> None:
    if "stop" in message:
      sentence, code = str(message["stop"]), int(message["code"])
      if self._index == 0:
        sentence = f"{peer.name} ended: {sentence}"
      self._stop(sentence, code)
    elif "bye" in message:
      peer.left = True
    elif "at" in message:
      step, activity, parts = (int(x) for x in message["at"])
      position = (step, min(max(activity, 0), len(ACTIVITIES) - 1), parts)
      if position != peer.at:
        peer.at, peer.moved = position, time.monotonic()

  def _check(self, now: float) -> None:
    """Ends the run when a process is silent or none gets on."""
    there = [peer for peer in self._peers if not peer.left]
    for peer in there:
      if now - peer.heard > self._deadlines.silence_seconds:
        self._stop(
          f"{peer.name} has not been heard of for "
          f"{self._deadlines.silence_seconds:g} s, {_words(peer.at)}.",
          1,
        )
    # Only process 0 sees all; the others would accuse it of waiting.
    if self._index == 0 and there:
      moved = max([self._moved, *(peer.moved for peer in there)])
      if now - moved > self._deadlines.stall_seconds:
        self._stop(self._stall(there), 1)

  def _stall(self, there: Iterable[_Peer]) -> str:
    here = self._name_of(0, f"{socket.gethostname()}, pid {os.getpid()}")
    positions = [(self._at, here), *((p.at, p.name) for p in there)]
    last = min(at for at, _ in positions)
    behind = [f"{name}, {_words(at)}" for at, name in positions if at == last]
    return (
      f"Nothing moved for {self._deadlines.stall_seconds:g} s. Behind: "
      f"{'; '.join(behind)}."
    )

  def _stop(self, sentence: str, code: int) -> None:
    """Ends the run: tells the others, then ends this process."""
    self._closing.set()
    if self._index == 0:
      for peer in self._peers:
        peer.send({"stop": sentence, "code": code})
    self._end(sentence, code)


def _listen(address: tuple[str, int]) -> socket.socket:
  host, port = address
  try:
    ipaddress.IPv4Address(host)
  except ValueError:
    # The name of a host may stand for its loopback address in its own tables.
    host = "127.0.0.1" if host == "localhost" else ""
  try:
    return socket.create_server((host, port))
  except OSError as error:
    raise RunError(
      f"Process 0 cannot listen on port {port} ({error.strerror}); the "
      "coordinator's port and the one after it must be free."
    ) from None


def _words(at: tuple[int, int, int]) -> str:
  step, activity, _ = at
  return f"at update {step:,}, {ACTIVITIES[activity]}"


def _listing(indices: list[int]) -> str:
  if len(indices) == 1:
    return f"Process {indices[0]}"
  return f"Processes {', '.join(map(str, indices))}"


def _end_process(sentence: str, code: int) -> NoReturn:
  """Writes one line and ends at once.

  The main thread may wait for the lost process for ever, inside a collective
  that no exception reaches. Half-written checkpoints are cleaned up by the
  next start, and Grain's workers end with their parent.
  """
  again = "" if code == 2 or _RESUME in sentence else f" {_RESUME}"
  os.write(2, f"byol: {sentence}{again}\n".encode())
  os._exit(code)
