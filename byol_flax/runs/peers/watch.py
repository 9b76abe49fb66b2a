"""Whether every process of a run is there, told in one sentence when not.

JAX ends a process when another one is lost, but without a name if that one
never came, and with a stack trace. Here process 0 listens, and every other
process keeps one connection to it from the start of the run to its end; the
kernel closes it when a process is killed, and silence tells of a lost host. All
processes then end with the same sentence and exit code.

Messages after the roll call, both ways: "at" every second, "stop" (a sentence
and an exit code: end now), and "bye" before an orderly end.
"""

import dataclasses
import hashlib
import selectors
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from byol_flax.runs.peers import roll_call
from byol_flax.runs.peers.roll_call import BEAT_SECONDS, Peer

# That process 0 stays behind the others, whom it tells to end or who tell it so
# and stay for a beat. JAX's service goes with it, and aborts whoever is there.
_LAST_SECONDS = 1.5 * BEAT_SECONDS

# What a process can be at within one update, in this order.
ACTIVITIES = (
  "setting up",
  "waiting for input",
  "updating",
  "saving",
  "evaluating",
  "ending",
)


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


class Peers:
  """The other processes of this run, watched by a thread."""

  def __init__(
    self,
    address: tuple[str, int],
    *,
    index: int,
    count: int,
    deadlines: Deadlines,
    identity: str,
    stopping: Callable[[], bool],
    end: Callable[[str, int], NoReturn] | None = None,
  ) -> None:
    """Meets nobody yet; see `gather`.

    Args:
      address: where process 0 listens.
      index: of this process.
      count: of processes, more than one.
      deadlines: how long to wait.
      identity: of what is to be run; processes with another one are refused.
      stopping: whether this process was told to end before all were there.
      end: ends this process with a sentence and an exit code.
    """
    self._address = address
    self._index, self._count, self._deadlines = index, count, deadlines
    self._end = end or roll_call.end_process
    self._call = roll_call.RollCall(
      index=index,
      count=count,
      identity=hashlib.blake2b(identity.encode()).hexdigest()[:32],
      start_seconds=deadlines.start_seconds,
      stopping=stopping,
      end=self._end,
    )
    self._peers: list[Peer] = []
    self._at = (0, 0, 0)
    self._moved = time.monotonic()
    self._closing = threading.Event()
    self._thread = threading.Thread(target=self._watch, daemon=True)

  def gather(self) -> None:
    """Returns when all processes are there.

    Raises:
      RunError: names the processes that did not come.
      PreemptedError: this process was told to end.
    """
    if self._index == 0:
      self._call.gather(self._address)
    else:
      self._call.join(self._address)
    self._peers = list(self._call.come.values())
    self._moved = time.monotonic()
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
    self.tell(sentence, code)
    self._end(sentence, code)

  def tell(self, sentence: str, code: int) -> None:
    """Tells the others to end, those who have come if not all have."""
    told = sentence
    if self._index == 0:
      told = f"{self._name_of(0, roll_call.here())} ended: {sentence}"
    self._closing.set()
    there = list(self._call.come.values())
    for peer in there:
      peer.send({"stop": told, "code": code})
    if there:  # the last words must leave before the process
      time.sleep(BEAT_SECONDS if self._index else _LAST_SECONDS)

  def close(self) -> None:
    """Leaves in order; the others go on."""
    self._closing.set()
    for peer in self._peers:
      peer.send({"bye": self._index})
    self._thread.join()
    for peer in self._peers:
      peer.connection.close()

  def _name_of(self, index: int, where: str) -> str:
    return roll_call.name_of(index, self._count, where)

  def _watch(self) -> None:
    with selectors.DefaultSelector() as selector:
      for peer in self._peers:
        selector.register(peer.connection, selectors.EVENT_READ, peer)
      next_beat = 0.0
      while not self._closing.is_set():
        for key, _ in selector.select(timeout=BEAT_SECONDS / 4):
          if self._hear(key.data):
            selector.unregister(key.fileobj)
        now = time.monotonic()
        if now >= next_beat:
          next_beat = now + BEAT_SECONDS
          for peer in self._peers:
            peer.send({"at": self._at})
          self._check(now)

  def _hear(self, peer: Peer) -> bool:
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

  def _take(self, peer: Peer, message: dict[str, Any]) -> None:
    if self._closing.is_set():
      return  # this process is ending already, and has said why
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

  def _stall(self, there: Iterable[Peer]) -> str:
    here = self._name_of(0, roll_call.here())
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
      time.sleep(_LAST_SECONDS)
    self._end(sentence, code)


def _words(at: tuple[int, int, int]) -> str:
  step, activity, _ = at
  return f"at update {step:,}, {ACTIVITIES[activity]}"
