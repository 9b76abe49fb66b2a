"""The processes of a run: how they find each other, agree and end.

On a TPU VM, under Slurm and wherever else JAX knows the cluster, everything is
detected. Elsewhere the coordinator is given, or the process is alone. A process
that is alone starts JAX's service too, because without it JAX hears of no
preemption.
"""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import socket
import time
import traceback
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from byol_flax.runs import interrupts
from byol_flax.runs.peers import watch
from input_pipeline.errors import PreemptedError, RunError, UsageError

_FAIL_TOGETHER_MS = 60_000
_LONGEST = 4000  # bytes of a sentence that all are told


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Which of all processes this one is.

  Attributes:
    coordinator: HOST:PORT of process 0.
    index: of this process.
    count: of processes.
  """

  coordinator: str
  index: int
  count: int


class Processes:
  """What the processes of a run do together.

  Every method but `at` and `moved` must be called by all of them in the same
  order.
  """

  def __init__(self, channel: watch.Peers | None = None) -> None:
    """Takes the channel to the others; None when there are none."""
    self._channel = channel
    self._checks = 0

  @property
  def alone(self) -> bool:
    """Whether there are no others."""
    return jax.process_count() == 1

  def at(self, step: int, activity: str) -> None:
    """Says what this process is doing: one of `watch.ACTIVITIES`."""
    if self._channel:
      self._channel.at(step, activity)

  def moved(self) -> None:
    """Says that a part of this process's activity is done."""
    if self._channel:
      self._channel.part_done()

  def part_done(self) -> None:
    """Says that a part of an activity is done, and calls `check_preempted`."""
    self.moved()
    self.check_preempted()

  def check_preempted(self) -> None:
    """Raises PreemptedError, at the same call on every process.

    A SIGTERM to any process makes all of them agree on one of the next calls.
    As long as none came, a call costs less than a microsecond.
    """
    self._checks += 1
    if multihost_utils.reached_preemption_sync_point(self._checks):
      raise PreemptedError

  def any(self, flag: bool) -> bool:
    """Whether `flag` is true on any process."""
    if self.alone:
      return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))

  def of_first(self, number: int) -> int:
    """The number that process 0 gives, which the others need not know."""
    if self.alone:
      return number
    return int(multihost_utils.process_allgather(np.asarray(number))[0])

  def agree(self, value: Any) -> bool:
    """Whether all give the same JSON value."""
    digest = zlib.crc32(json.dumps(value, sort_keys=True).encode()) >> 1
    return not self.any(digest != self.of_first(digest))

  def union(self, numbers: Iterable[int]) -> list[int]:
    """All numbers, 0 or more, that any process gives, in rising order."""
    mine = np.unique(np.array([*numbers], np.int32))
    if self.alone:
      return [*map(int, mine)]
    most = int(np.max(multihost_utils.process_allgather(np.asarray(len(mine)))))
    if not most:
      return []
    row = np.pad(mine, (0, most - len(mine)), constant_values=-1)
    found = np.unique(multihost_utils.process_allgather(row))
    return [*map(int, found[found >= 0])]

  def together(self, act: Callable[[], None]) -> None:
    """Calls `act`; if one process is refused, all are.

    So none waits for another that cannot go on.

    Raises:
      UsageError: with the sentence that `act` raised on any process.
    """
    if self.alone:
      act()
      return
    sentence = b""
    try:
      act()
    except UsageError as error:
      sentence = str(error).encode()[:_LONGEST]
    row = np.frombuffer(sentence.ljust(_LONGEST, b"\0"), np.uint8)
    for other in multihost_utils.process_allgather(row):
      if text := other.tobytes().rstrip(b"\0"):
        raise UsageError(text.decode(errors="ignore"))

  def all_fail(self, name: str) -> bool:
    """Whether every process comes here within a minute.

    A process calls this where it cannot go on. If the others do not, they are
    waiting for it in their work, and only an end of all helps.

    Args:
      name: of this failure, another one for each.
    """
    if self.alone:
      return True
    # JAX has no public barrier with a deadline.
    from jax._src import distributed

    client: Any = distributed.global_state.client
    try:
      client.wait_at_barrier(f"byol: {name}", _FAIL_TOGETHER_MS)
    except jax.errors.JaxRuntimeError:
      return False
    return True

  def wait(self, name: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(name)


def find_cluster(
  coordinator: str | None, count: int | None, index: int | None
) -> Cluster:
  """The cluster given, else the one that JAX detects, else this process alone.

  Raises:
    UsageError: some of the three are given and others are not, or wrong.
  """
  given = (coordinator, count, index)
  if coordinator is None and count is None and index is None:
    # JAX has no public name for what `jax.distributed.initialize` would find.
    from jax._src import clusters

    found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
      None, None, None, None, None, 300
    )
    if None not in found[:3]:
      return Cluster(str(found[0]), int(found[2] or 0), int(found[1] or 1))
    return Cluster(f"127.0.0.1:{_free_port()}", 0, 1)
  if coordinator is None or count is None or index is None:
    raise UsageError(
      "--coordinator=HOST:PORT, --process-count and --process-index belong "
      f"together; {given} came. On a TPU VM leave all three out."
    )
  host, _, port = coordinator.rpartition(":")
  if not host or not port.isdigit() or not 0 < int(port) < 65535:
    raise UsageError(
      f"--coordinator is {coordinator!r}; HOST:PORT of process 0 is expected, "
      "with that port and the next one free."
    )
  if not 0 <= index < count:
    raise UsageError(
      f"--process-index is {index} and --process-count {count}; the processes "
      "are numbered from 0."
    )
  return Cluster(coordinator, index, count)


@contextlib.contextmanager
def start(
  cluster: Cluster,
  deadlines: watch.Deadlines,
  *,
  identity: str,
  sigterms: Collection[int],
) -> Iterator[Processes]:
  """Gathers all processes and starts JAX's service; ends it afterwards.

  It must be called before anything touches a device. When the block fails on
  one process, the others end too, with the same exit code.

  Args:
    cluster: all processes.
    deadlines: how long to wait for them.
    identity: a text about what is to be run, which must be the same on all.
    sigterms: not empty once this process received SIGTERM.

  Raises:
    RunError: names the processes that did not come in time.
    PreemptedError: SIGTERM came while others were waited for.
  """
  with contextlib.ExitStack() as stack:
    channel = _make_channel(cluster, deadlines, identity, sigterms)
    if channel:
      tell = functools.partial(channel.tell, "interrupted.", 130)
      stack.enter_context(interrupts.when_leaving(tell))
      channel.gather()
    else:
      # Gloo would write on the console that it found no other process.
      jax.config.update("jax_cpu_collectives_implementation", None)
    with _ended_with_the_others(channel):
      _initialize(cluster, deadlines)
      if sigterms:  # they came before JAX could hear them
        os.kill(os.getpid(), signal.SIGTERM)
      yield Processes(channel)


@contextlib.contextmanager
def _ended_with_the_others(channel: watch.Peers | None) -> Iterator[None]:
  """Leaves in order after the block; tells the others when it failed."""
  try:
    yield
  except PreemptedError:
    _leave(channel)
    raise
  except (UsageError, RunError) as error:
    _fail(channel, str(error), 2 if isinstance(error, UsageError) else 1)
    raise
  except BaseException as error:
    # When a process is lost, the first sign is often that a collective fails.
    # The watch knows which one is lost and ends this process in a moment.
    if channel and isinstance(error, jax.errors.JaxRuntimeError):
      time.sleep(5)
    if channel:
      traceback.print_exception(error)
    _fail(channel, f"{type(error).__name__}: {str(error)[:300]}", 1)
    raise
  _leave(channel)


def _make_channel(
  cluster: Cluster,
  deadlines: watch.Deadlines,
  identity: str,
  sigterms: Collection[int],
) -> watch.Peers | None:
  """The channel to the other processes; None when there are none."""
  if cluster.count == 1:
    return None
  host, _, port = cluster.coordinator.rpartition(":")
  return watch.Peers(
    (host, _channel_port(int(port))),
    index=cluster.index,
    count=cluster.count,
    deadlines=deadlines,
    identity=identity,
    stopping=lambda: bool(sigterms),
  )


def _initialize(cluster: Cluster, deadlines: watch.Deadlines) -> None:
  """Starts JAX's own service."""
  try:
    jax.distributed.initialize(
      cluster.coordinator,
      num_processes=cluster.count,
      process_id=cluster.index,
      coordinator_bind_address=_bind_address(cluster),
      initialization_timeout=int(deadlines.start_seconds),
      # Longer than the watch waits, because JAX would not name the process that
      # was lost.
      heartbeat_timeout_seconds=2 * int(deadlines.silence_seconds) + 10,
      # At the end all wait for the slowest, which may still write its files.
      shutdown_timeout_seconds=int(deadlines.stall_seconds),
    )
  except RuntimeError as error:
    raise RunError(
      f"JAX's service did not start at {cluster.coordinator}: "
      f"{str(error).splitlines()[0]}"
    ) from None


def _leave(channel: watch.Peers | None) -> None:
  """Ends JAX's service, in which all processes wait for each other."""
  jax.distributed.shutdown()
  if channel:
    channel.close()


def _fail(channel: watch.Peers | None, sentence: str, code: int) -> None:
  """Ends this process and the others, without waiting; returns when alone."""
  if channel:
    channel.fail(sentence, code)
  jax.distributed.shutdown()


def _channel_port(port: int) -> int:
  """The port of `watch.Peers`, next to the coordinator's."""
  return port + 1 if port < 65535 else port - 1


def _bind_address(cluster: Cluster) -> str | None:
  """The address to listen on, narrow if no other process must reach it.

  None leaves the choice to JAX.
  """
  return cluster.coordinator if cluster.count == 1 else None


def _free_port() -> int:
  with socket.create_server(("127.0.0.1", 0)) as server:
    return server.getsockname()[1]
