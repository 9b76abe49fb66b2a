"""The processes of a run: gathered, watched, told why they end."""

import concurrent.futures
import random
import socket
import threading
import time

import pytest

from byol_flax.runs.peers import roll_call, watch
from input_pipeline.errors import PreemptedError, RunError

LONG = 300  # seconds for what takes one
PATIENT = watch.Deadlines(
  start_seconds=LONG, silence_seconds=LONG, stall_seconds=LONG
)


class Clock:
  """Stands for the module `time` of the processes; tests put it forward."""

  sleep = staticmethod(time.sleep)

  def __init__(self):
    self.ahead = 0

  def monotonic(self):
    return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  for module in (roll_call, watch):
    monkeypatch.setattr(module, "time", clock)
  return clock


def wait_until(found):
  deadline = time.monotonic() + LONG
  while not found():
    assert time.monotonic() < deadline
    time.sleep(0.02)


class Run:
  """Processes played by threads; what they end with is kept."""

  def __init__(self, count, deadlines=PATIENT, present=None):
    self.count, self.deadlines = count, deadlines
    # Nobody else gets the port, and process 0 may listen there all the same.
    self.kept = socket.socket()
    self.kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    self.kept.bind(("127.0.0.1", 0))
    self.address = self.kept.getsockname()
    self.ended, self.errors, self.peers = {}, {}, {}
    self.stopping, self.identities = set(), {}
    self.come = {}  # of each process, the others that it has met
    present = range(count) if present is None else present
    for thread in self.begin(*present):
      thread.join()

  def begin(self, *indices):
    """Begins to gather these processes; returns their threads."""
    threads = [
      threading.Thread(target=self.join, args=(i,), daemon=True)
      for i in indices
    ]
    for thread in threads:
      thread.start()
    return threads

  def join(self, index, count=None):
    def end(sentence, code):
      self.ended[index] = (sentence, code)
      for peer in channel._call.come.values():
        peer.connection.close()
      raise SystemExit  # ends this thread, as the real one ends the process

    try:
      channel = watch.Peers(
        self.address,
        index=index,
        count=count or self.count,
        deadlines=self.deadlines,
        identity=self.identities.get(index, "the run"),
        stopping=lambda: index in self.stopping,
        end=end,
      )
      self.come[index] = channel._call.come
      channel.gather()
      self.peers[index] = channel
    except RunError as error:
      self.errors[index] = str(error)
    except PreemptedError:
      self.errors[index] = "preempted"
    except SystemExit:
      pass

  def wait_for(self, indices):
    wait_until(lambda: set(indices) <= set(self.ended))

  def wait_for_meeting(self, *indices):
    """Until process 0 has met these."""
    wait_until(lambda: set(indices) <= set(self.come.get(0, ())))

  def wait_for_positions(self, of):
    """Until process 0 has heard where the others are, as `of` says."""

    def heard():
      positions = {peer.index: peer.at[0::2] for peer in self.peers[0]._peers}
      return all(positions[index] == of[index] for index in of)

    wait_until(heard)

  def kill(self, index):
    """What the kernel does for a process that is killed."""
    self.peers[index]._closing.set()
    for peer in self.peers[index]._peers:
      peer.connection.shutdown(socket.SHUT_RDWR)
      peer.connection.close()


def test_those_who_do_not_come_are_named(clock):
  run = Run(4, present=[])
  threads = run.begin(0, 2)
  run.wait_for_meeting(2)
  clock.ahead += LONG + 1
  for thread in threads:
    thread.join(LONG)
  assert "Processes 1, 3 of 4 did not come within 300 s" in run.errors[0]
  sentence, code = run.ended[2]
  assert "Processes 1, 3 of 4" in sentence
  assert code == 1


def test_process_0_is_named_when_it_does_not_come():
  deadlines = watch.Deadlines(
    start_seconds=1, silence_seconds=20, stall_seconds=60
  )
  run = Run(2, deadlines, present=[1])
  assert "Process 0 of 2 did not answer at 127.0.0.1" in run.errors[1]


def test_two_sizes_of_one_run_are_a_usage_error():
  run = Run(3, present=[])
  (gathered,) = run.begin(0)
  run.join(1, count=2)
  sentence, code = run.ended[1]
  assert "one of 2, process 0 as one of 3" in sentence
  assert code == 2
  for thread in (*run.begin(1, 2), gathered):
    thread.join(LONG)
  assert sorted(run.peers) == [0, 1, 2]


def test_another_command_on_one_process_is_a_usage_error():
  run = Run(3, present=[])
  run.identities[2] = "another config"
  threads = run.begin(0, 1, 2)
  run.wait_for([2])
  sentence, code = run.ended[2]
  assert "process 2 of 3" in sentence
  assert "another config, workdir" in sentence
  assert code == 2
  # The others still wait for a process 2 that fits.
  del run.identities[2]
  run.join(2)
  for thread in threads:
    thread.join(LONG)
  assert sorted(run.peers) == [0, 1, 2]


def gather_at_random(seed):
  """Four that come at random moments; some are told to end before the last."""
  rng = random.Random(seed)
  run = Run(4, present=[])
  moments = [rng.uniform(0, 2) for _ in range(4)]
  last = rng.randrange(4)
  stopped = rng.sample(range(4), rng.choice((1, 1, 2)))
  told = rng.uniform(0, 2)

  telling = [
    threading.Timer(told, run.stopping.add, [index]) for index in stopped
  ]

  def come(index):
    if index != last:
      time.sleep(moments[index])
      return run.join(index)
    # Whoever is told and has come says so before all have come.
    for each in telling:
      each.join()
    if last and set(stopped) != {last}:
      wait_until(lambda: {1, 2, 3} - {last} <= {*run.errors, *run.ended})
    return run.join(last)

  threads = [
    *telling,
    *(threading.Thread(target=come, args=(index,)) for index in range(4)),
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(LONG)
  wait_until(lambda: {*run.errors, *run.ended} == set(range(4)))
  preempted = {i for i, error in run.errors.items() if error == "preempted"}
  ended = {i for i, (_, code) in run.ended.items() if code == 75}
  told = f"{moments}, {stopped} at {told}: {run.errors}, {run.ended}"
  assert preempted | ended == set(range(4)), told
  assert preempted <= set(stopped), told
  assert all("preempted" in run.ended[i][0] for i in ended), told


@pytest.mark.slow
def test_a_signal_while_they_gather_ends_all_with_75_the_late_ones_too():
  with concurrent.futures.ThreadPoolExecutor(24) as pool:
    list(pool.map(gather_at_random, range(24)))


@pytest.mark.parametrize("stopped", [0, 1])
def test_nobody_waits_for_long_for_those_who_never_come(clock, stopped):
  run = Run(3, present=[])
  threads = run.begin(0, 1)
  run.wait_for_meeting(1)
  run.stopping.add(stopped)
  # Process 1 ends when process 0 knows, which then waits for process 2.
  wait_until(lambda: 1 in run.ended or 1 in run.errors)
  for _ in range(4):  # the first may come before it begins to wait
    threads[0].join(2)
    clock.ahead += roll_call.LINGER_SECONDS + 1
  for thread in threads:
    thread.join(LONG)
  assert run.errors == {stopped: "preempted"}
  assert run.ended[1 - stopped][1] == 75


def test_a_signal_while_process_0_is_not_there():
  deadlines = watch.Deadlines(
    start_seconds=1, silence_seconds=20, stall_seconds=60
  )
  run = Run(2, deadlines, present=[])
  run.stopping.add(1)
  run.join(1)
  assert run.errors == {1: "preempted"}


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1, 2])
def test_a_killed_process_is_named_everywhere(killed):
  run = Run(3)
  for index in range(3):
    run.peers[index].at(17, "updating")
  for index in range(3):
    others = run.peers[index]._peers
    wait_until(lambda: all(peer.at[0] == 17 for peer in others))  # noqa: B023
  run.kill(killed)
  left = {0, 1, 2} - {killed}
  run.wait_for(left)
  for index in left:
    sentence, code = run.ended[index]
    assert f"process {killed} of 3" in sentence
    assert "at update 17, updating" in sentence
    assert code == 1


def test_a_silent_process_is_named(clock):
  deadlines = watch.Deadlines(
    start_seconds=LONG, silence_seconds=60, stall_seconds=1e6
  )
  run = Run(2, deadlines)
  # Its host lost power: the connection stays, and nothing comes.
  run.peers[1]._closing.set()
  run.peers[1]._thread.join()

  def silent():  # its last words may be heard after the first minute
    clock.ahead += 61
    return 0 in run.ended

  wait_until(silent)
  assert "process 1 of 2" in run.ended[0][0]
  assert "not been heard of for 60 s" in run.ended[0][0]


def test_those_who_hold_up_the_others_are_named(clock):
  deadlines = watch.Deadlines(
    start_seconds=LONG, silence_seconds=LONG, stall_seconds=60
  )
  run = Run(3, deadlines)
  run.peers[0].at(5, "updating")
  run.peers[1].at(5, "waiting for input")
  run.peers[2].at(5, "updating")
  run.wait_for_positions({1: (5, 0), 2: (5, 0)})
  clock.ahead += 61
  run.wait_for([0, 1, 2])
  for index in range(3):
    sentence, code = run.ended[index]
    assert "Nothing moved for 60 s. Behind: process 1 of 3" in sentence
    assert "at update 5, waiting for input" in sentence
    assert "process 2 of 3" not in sentence
    assert code == 1


def test_parts_of_a_long_evaluation_are_movement(clock):
  deadlines = watch.Deadlines(
    start_seconds=LONG, silence_seconds=10 * LONG, stall_seconds=LONG
  )
  run = Run(2, deadlines)
  run.peers[1].at(5, "evaluating")
  for parts in range(1, 9):
    clock.ahead += LONG / 2
    run.peers[1].part_done()
    run.wait_for_positions({1: (5, parts)})
  assert not run.ended
  for index in (1, 0):
    run.peers[index].close()


@pytest.mark.parametrize("failed", [0, 1])
def test_a_failure_ends_all_with_its_sentence_and_code(failed):
  run = Run(3)
  with pytest.raises(SystemExit):
    run.peers[failed].fail("The data ended.", 2)
  assert run.ended[failed] == ("The data ended.", 2)
  left = {0, 1, 2} - {failed}
  run.wait_for(left)
  for index in left:
    sentence, code = run.ended[index]
    assert f"process {failed} of 3" in sentence
    assert "ended: The data ended." in sentence
    assert code == 2


@pytest.mark.slow
def test_leaving_in_order_alarms_no_one():
  run = Run(3)
  for index in (2, 0, 1):
    run.peers[index].close()
    time.sleep(0.3)
  time.sleep(1.5)
  assert not run.ended


def connected(address):
  """A connection to process 0, as soon as it listens."""
  deadline = time.monotonic() + LONG
  while True:
    try:
      return socket.create_connection(address)
    except ConnectionRefusedError:
      assert time.monotonic() < deadline
      time.sleep(0.02)


@pytest.mark.parametrize(
  "words", [b"GET / HTTP/1.1\r\n\r\n", b'{"hello": 7}\n', b'{"hello": "1"}\n']
)
def test_a_stranger_is_turned_away(words):
  run = Run(2, present=[])
  (gathering,) = run.begin(0)
  with connected(run.address) as stranger:
    stranger.sendall(words)
    stranger.settimeout(LONG)
    assert stranger.recv(100) == b""
  run.join(1)
  gathering.join(LONG)
  assert sorted(run.peers) == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
  "words", [b'{"at": [1', b'{"at": [1, 2]}', b"[]", b"7"]
)
def test_nonsense_from_a_peer_counts_as_its_loss(words):
  run = Run(2)
  run.peers[1]._peers[0].connection.sendall(words + b"\n")
  run.wait_for([0])
  assert "process 1 of 2" in run.ended[0][0]
