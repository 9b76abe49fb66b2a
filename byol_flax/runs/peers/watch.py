"""Watches the processes of a run and names the one that is lost or hangs.

JAX ends a process when another one is lost, but with a stack trace, and without
naming one that never came. Here process 0 listens, and every other process
keeps one connection to it from the start of the run to its end. When a process
is killed, the kernel closes its connection; when a host is lost, it falls
silent. All processes then end with the same sentence and exit code.

After the roll call both sides send these messages: "at" every second, "stop" (a
sentence and an exit code: end now), and "bye" before an orderly end.
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

# How long process 0 stays after a "stop". JAX's service ends with process 0 and
# aborts whoever is still there; a process that sent "stop" stays for one beat.
_LAST_SECONDS = 1.5 * BEAT_SECONDS

# What a process can be doing within one update, in this order.
ACTIVITIES = (
  "setting up",
  "staging",
  "setting up after staging",
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
    silence_seconds: for a sign of life from each.
    stall_seconds: for progress of any process.
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
    """Does not connect yet; see `gather`.

    Args:
      address: where process 0 listens.
      index: of this process.
      count: how many processes there are, more than one.
      deadlines: how long to wait.
      identity: a text about what is to be run; a process with another is
        refused.
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
    """Says what this process is doing: one of ACTIVITIES, for update `step`."""
    self._at = (step, ACTIVITIES.index(activity), 0)
    self._moved = time.monotonic()

  def part_done(self) -> None:
    """Says that a part of the activity is done, such as one batch."""
    step, activity, parts = self._at
    self._at = (step, activity, parts + 1)
    self._moved = time.monotonic()

  def fail(self, sentence: str, code: int) -> NoReturn:
    """Ends this process, and tells the others so that they end too.

    An exception would lead to the end of the program, where JAX would wait for
    processes that are about to end themselves.
    """
    self.tell(sentence, code)
    self._end(sentence, code)

  def tell(self, sentence: str, code: int) -> None:
    """Tells the others to end, or those of them that have come so far."""
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
    """Reads what came from `peer`; True when it has left or is lost."""
    messages = peer.receive()
    try:
      if messages is None:
        raise ValueError
      for message in messages:
        self._take(peer, message)
    except (KeyError, TypeError, ValueError):
      # It is closed, or sent nonsense, which no process of ours would do.
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
    """Ends the run when one process is silent or none makes progress."""
    there = [peer for peer in self._peers if not peer.left]
    for peer in there:
      if now - peer.heard > self._deadlines.silence_seconds:
        self._stop(
          f"{peer.name} has not been heard of for "
          f"{self._deadlines.silence_seconds:g} s, {_words(peer.at)}.",
          1,
        )
    # Only process 0 sees all positions. The others see only that process 0
    # waits.
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
