"""How the processes of a run come together, before JAX knows of them.

Process 0 listens. Every other process connects and says hello: which process it
is, of how many, and what it is about to run. When all are there, process 0 says
go, and the connections stay open (`watch`). Messages are lines of JSON.

A process that is told to end meanwhile tells process 0, and process 0 tells all
others. As some may still be importing, both wait a while for the other side.
"""

import contextlib
import dataclasses
import json
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from byol_flax.runs import console
from input_pipeline import parents
from input_pipeline.errors import PreemptedError, RunError

BEAT_SECONDS = 1.0
RESUME = "This run ends here; the same command resumes it."
# How long a process that was told to end waits for the others, to tell them.
# Imports before the roll call took 2 s for one process alone, and 21 s for
# eight at once on two cores.
LINGER_SECONDS = 60.0
_STOPPED = "preempted before all processes had come."
_LONGEST_LINE = 65536


@dataclasses.dataclass
class Peer:
  """The other end of a connection, and what is known of that process.

  Attributes:
    index: of the process.
    name: for people.
    connection: to it.
    received: the beginning of a message that has not come whole.
    at: update, index into ACTIVITIES, and parts done of that activity.
    heard: when something last came, by the monotonic clock.
    moved: when `at` last changed.
    left: whether it said bye.
  """

  index: int
  name: str
  connection: socket.socket
  received: bytes = b""
  at: tuple[int, int, int] = (0, 0, 0)
  heard: float = dataclasses.field(default_factory=time.monotonic)
  moved: float = dataclasses.field(default_factory=time.monotonic)
  left: bool = False

  def send(self, message: dict[str, Any]) -> None:
    """Sends one message."""
    # A dead connection is noticed where it is read.
    with contextlib.suppress(OSError):
      self.connection.sendall(json.dumps(message).encode() + b"\n")

  def send_last(self, message: dict[str, Any]) -> None:
    """Sends a message and waits until the other end has taken it.

    If the connection were closed while something that came is unread, it would
    be reset, and the message lost.
    """
    self.send(message)
    with contextlib.suppress(OSError):
      self.connection.shutdown(socket.SHUT_WR)
      self.connection.settimeout(5 * BEAT_SECONDS)
      while self.connection.recv(_LONGEST_LINE):
        pass

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


class _EndedError(Exception):
  """Process `index` ended the run before all had come."""

  def __init__(self, index: int, sentence: str, code: int) -> None:
    super().__init__(sentence)
    self.index, self.sentence, self.code = index, sentence, code


@dataclasses.dataclass(frozen=True)
class RollCall:
  """The part of one process in the roll call.

  Attributes:
    index: of this process.
    count: how many processes there are, more than one.
    identity: a text about what is to be run; a process with another is refused.
    start_seconds: how long to wait for all.
    stopping: whether this process was told to end meanwhile.
    end: ends this process with a sentence and an exit code.
    come: the processes that are there, by index.
  """

  index: int
  count: int
  identity: str
  start_seconds: float
  stopping: Callable[[], bool]
  end: Callable[[str, int], NoReturn]
  come: dict[int, Peer] = dataclasses.field(default_factory=dict)

  def gather(self, address: tuple[str, int]) -> None:
    """Process 0: listens until every other process said hello."""
    with _listen(address) as listener:
      try:
        self._gather(listener)
      except _EndedError as ended:
        self._tell_all(listener, ended)
        if ended.index == 0:
          raise PreemptedError from None
        self.end(ended.sentence, ended.code)

  def _gather(self, listener: socket.socket) -> None:
    come = self.come
    deadline = time.monotonic() + self.start_seconds
    with selectors.DefaultSelector() as selector:
      selector.register(listener, selectors.EVENT_READ)
      while len(come) < self.count - 1:
        for key, _ in selector.select(timeout=BEAT_SECONDS / 4):
          if key.data is None:
            newcomer, more = self._read_hello(listener.accept()[0])
            if newcomer:
              come[newcomer.index] = newcomer
              self._obey(newcomer, more)
              selector.register(
                newcomer.connection, selectors.EVENT_READ, newcomer
              )
            continue
          peer: Peer = key.data
          if not self._still_waits(peer):
            selector.unregister(key.fileobj)
            if come.get(peer.index) is peer:
              del come[peer.index]
        if self.stopping():
          who = name_of(0, self.count, here())
          raise _EndedError(0, f"{who} ended: {_STOPPED}", 75)
        if time.monotonic() > deadline:
          missing = sorted(set(range(1, self.count)) - come.keys())
          sentence = (
            f"{_listing(missing)} of {self.count} did not come within "
            f"{self.start_seconds:g} s."
          )
          self._dismiss(come.values(), sentence, 1)
          raise RunError(f"{sentence} {RESUME}")
    for peer in come.values():
      peer.send({"go": True})

  def _tell_all(self, listener: socket.socket, ended: _EndedError) -> None:
    """Tells all other processes to end, and waits for those that come late.

    Otherwise they would find nobody and take that for a fault.
    """
    self._dismiss(self.come.values(), ended.sentence, ended.code)
    missing = set(range(1, self.count)) - self.come.keys() - {ended.index}
    seconds = min(self.start_seconds, LINGER_SECONDS)
    if missing:
      console.say(
        f"{ended.sentence} Waiting up to {seconds:g} s to tell "
        f"{_listing(sorted(missing)).lower()} of {self.count}."
      )
    deadline = time.monotonic() + seconds
    listener.settimeout(BEAT_SECONDS / 4)
    while missing and time.monotonic() < deadline:
      with contextlib.suppress(TimeoutError):
        newcomer, _ = self._read_hello(listener.accept()[0])
        if newcomer:
          self._dismiss([newcomer], ended.sentence, ended.code)
          missing.discard(newcomer.index)

  def _still_waits(self, peer: Peer) -> bool:
    """Whether a process that came is still there."""
    messages = peer.receive()
    self._obey(peer, messages or ())
    if messages is None:
      peer.connection.close()
    return messages is not None

  def _obey(self, peer: Peer, messages: Iterable[dict[str, Any]]) -> None:
    """Ends the roll call when `peer` says so."""
    for message in messages:
      if "stop" in message:
        sentence = f"{peer.name} ended: {message['stop']}"
        raise _EndedError(peer.index, sentence, int(message["code"]))

  def _dismiss(self, come: Iterable[Peer], sentence: str, code: int) -> None:
    for peer in come:
      peer.send({"stop": sentence, "code": code})
      peer.connection.close()

  def _read_hello(
    self, connection: socket.socket
  ) -> tuple[Peer | None, list[dict[str, Any]]]:
    """The process that said hello, or None, and its further messages."""
    connection.settimeout(5 * BEAT_SECONDS)
    peer = Peer(-1, "", connection)
    hello, *more = peer.receive() or [{}]
    connection.settimeout(None)
    index, count = hello.get("hello"), hello.get("count")
    if (
      not isinstance(index, int)
      or not isinstance(count, int)
      or not 0 < index < count
    ):
      connection.close()
      return None, []
    peer.index = index
    peer.name = name_of(index, self.count, str(hello.get("where"))[:100])
    wrong = ""
    if count != self.count:
      wrong = (
        f"process {index} was started as one of {count}, process 0 as one of "
        f"{self.count}; --process-count must be the same."
      )
    elif hello.get("identity") != self.identity:
      wrong = (
        f"{peer.name} was started with another config, workdir or "
        "--restart than process 0; start all with the same command."
      )
    if wrong:
      self._dismiss([peer], wrong, 2)
      return None, []
    return peer, more

  def join(self, address: tuple[str, int]) -> None:
    """Every other process: reaches process 0 and waits until it says go."""
    shown = f"{address[0]}:{address[1]}"
    hello = {
      "hello": self.index,
      "count": self.count,
      "identity": self.identity,
      "where": here(),
    }
    reason = ""
    # Process 0 should give up first, because it can name those that did not
    # come.
    start = time.monotonic()
    deadline = start + self.start_seconds + 10
    told_to_end = False
    while time.monotonic() < deadline:
      if self.stopping() and not told_to_end:
        # This process stays a while to tell process 0, which may come later
        # and must not wait for it.
        told_to_end = True
        linger = min(self.start_seconds, LINGER_SECONDS)
        deadline = min(deadline, time.monotonic() + linger)
      try:
        connection = socket.create_connection(address, timeout=BEAT_SECONDS)
      except OSError as error:
        reason = f" ({error})"
        # Process 0 does not listen, so it cannot give up first.
        if time.monotonic() > start + self.start_seconds:
          break
        connection = None
      if connection:
        peer = Peer(0, name_of(0, self.count, shown), connection)
        peer.send(hello)
        self.come[0] = peer
        if self._wait_for_go(peer, deadline):
          return
        del self.come[0]
        connection.close()
      time.sleep(BEAT_SECONDS / 10)
    if self.stopping():
      raise PreemptedError
    raise RunError(
      f"Process 0 of {self.count} did not answer at {shown} within "
      f"{self.start_seconds:g} s{reason}. {RESUME}"
    )

  def _wait_for_go(self, peer: Peer, deadline: float) -> bool:
    """Whether process 0 said go; False when it closed the connection."""
    with selectors.DefaultSelector() as selector:
      selector.register(peer.connection, selectors.EVENT_READ)
      while time.monotonic() < deadline:
        if self.stopping():
          peer.send_last({"stop": _STOPPED, "code": 75})
          raise PreemptedError
        if not selector.select(timeout=BEAT_SECONDS / 4):
          continue
        messages = peer.receive()
        if messages is None:
          return False
        for message in messages:
          if "stop" in message:
            self.end(str(message["stop"]), int(message["code"]))
        if any("go" in message for message in messages):
          peer.connection.settimeout(None)
          return True
    return False


def _listen(address: tuple[str, int]) -> socket.socket:
  host, port = address
  # A host cannot always listen on its own name or outer address.
  loopback = host == "localhost" or host.startswith("127.")
  try:
    return socket.create_server(("127.0.0.1" if loopback else "", port))
  except OSError as error:
    raise RunError(
      f"Process 0 cannot listen on port {port} ({error.strerror}); the "
      "coordinator's port and the one after it must be free."
    ) from None


def name_of(index: int, count: int, where: str) -> str:
  """Names a process, such as "process 1 of 4 (host, pid 7)"."""
  return f"process {index} of {count} ({where})"


def here() -> str:
  """Host and number of this process."""
  return f"{socket.gethostname()}, pid {os.getpid()}"


def _listing(indices: list[int]) -> str:
  if len(indices) == 1:
    return f"Process {indices[0]}"
  return f"Processes {', '.join(map(str, indices))}"


def end_process(sentence: str, code: int) -> NoReturn:
  """Writes one line and ends this process at once.

  The main thread may be waiting for the lost process, inside a collective that
  no exception reaches. The next start removes half-written checkpoints.
  """
  again = "" if code == 2 or RESUME in sentence else f" {RESUME}"
  console.say(f"{sentence}{again}")
  parents.kill_children()
  os._exit(code)
