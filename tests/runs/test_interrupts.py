"""Ctrl-C ends every command, whatever it is at, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from tests import processes, soak, trainers

SENTENCE = (
  "byol: interrupted; the same command goes on from the last checkpoint, if "
  "there is one.\n"
)
# Two seconds are promised, of which a busy machine may make many.
SOON = 20


def start(*command, ignored=()):
  """A process in a group of its own, with signals as a terminal leaves them."""

  def prepare():
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in ignored:
      signal.signal(number, signal.SIG_IGN)

  return subprocess.Popen(
    [sys.executable, *map(str, command)],
    cwd=trainers.ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    process_group=0,
    preexec_fn=prepare,
  )


def wait_for(true, run):
  deadline = time.monotonic() + 120
  while not true():
    assert run.poll() is None, run.communicate()
    assert time.monotonic() < deadline
    time.sleep(0.01)


def interrupt(run):
  """Ctrl-C; (status, standard error, seconds until it ended)."""
  begun = time.monotonic()
  os.killpg(run.pid, signal.SIGINT)
  errors = run.communicate(timeout=60)[1]
  return run.returncode, errors, time.monotonic() - begun


# Exceptions in a callback of C are printed and ignored, that of Ctrl-C too.
SWALLOWS = """
import ctypes
import pathlib

def get_config(arg):
  kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
  compare = kind(lambda a, b: 0)
  numbers = (ctypes.c_int * 10_000)()
  pathlib.Path(__file__).with_suffix(".reached").touch()
  while True:
    ctypes.CDLL(None).qsort(numbers, len(numbers), 4, compare)
"""


def test_ctrl_c_is_heard_where_exceptions_are_ignored(tmp_path):
  config = tmp_path / "config.py"
  config.write_text(SWALLOWS)
  module = ("-m", "byol_flax.main", "train", f"--workdir={tmp_path}/run")
  run = start(*module, f"--config={config}")
  wait_for(config.with_suffix(".reached").exists, run)
  code, errors, seconds = interrupt(run)
  assert (code, errors) == (130, SENTENCE)
  assert seconds < SOON


@pytest.mark.slow
def test_workers_of_prepare_say_nothing(tmp_path):
  pixels = np.zeros((8, 8, 3), np.uint8)
  image = cv2.imencode(".png", pixels)[1].tobytes()
  for i in range(3000):
    (tmp_path / "images" / str(i % 3)).mkdir(parents=True, exist_ok=True)
    (tmp_path / "images" / str(i % 3) / f"{i}.png").write_bytes(image)
  run = start(
    *("-m", "byol_flax.main", "prepare", tmp_path / "images", tmp_path / "out"),
    *("--workers=2", "--split=train"),
  )
  # Python's own helper and two that are about to be ours.
  wait_for(lambda: len(processes.children(run.pid)) == 3, run)
  children = processes.children(run.pid)
  code, errors, _ = interrupt(run)
  assert code == 130
  assert errors == (
    "byol: interrupted; the same command goes on where it stopped.\n"
  )
  deadline = time.monotonic() + 20
  while any(map(processes.lives, children)):
    assert time.monotonic() < deadline
    time.sleep(0.1)


# The child reads what it is told no further than to `Late` while its parent
# lives, which waits because it tells more than a pipe holds.
HALF_TOLD = """
import multiprocessing, os, signal, time
from byol_flax.runs import interrupts
from input_pipeline import parents
def orphaned(parent):
  while os.getppid() == parent:
    time.sleep(0.01)
class Late:
  def __reduce__(self):
    return orphaned, (os.getpid(),)
if __name__ == "__main__":
  interrupts.listen("interrupted.")
  context = multiprocessing.get_context("spawn")
  with parents.born_deaf(signal.SIGINT):
    context.Process(target=print, args=[Late(), bytes(10_000_000)]).start()
"""


def test_a_worker_that_is_just_being_started_says_nothing(tmp_path):
  script = tmp_path / "script.py"
  script.write_text(HALF_TOLD)
  run = start(script)
  wait_for(lambda: len(processes.children(run.pid)) == 2, run)
  code, errors, _ = interrupt(run)
  assert (code, errors) == (130, "byol: interrupted.\n")


LAST_WORDS = """
import time
from byol_flax.runs import interrupts
interrupts._SECONDS = {seconds}
interrupts.listen("interrupted.")
interrupts.terminate_on_hangup()
with interrupts.when_leaving(
  lambda: time.sleep(60), lambda: print("left", flush=True)
):
  print("ready", flush=True)
  time.sleep(60)
"""


@pytest.mark.parametrize(("times", "moment"), [(1, 1.5), (2, 50)])
def test_callbacks_get_a_moment_and_none_after_a_second_ctrl_c(times, moment):
  with start("-c", LAST_WORDS.format(seconds=moment)) as run:
    assert run.stdout.readline() == "ready\n"
    begun = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    assert run.stdout.readline() == "left\n"
    if times == 2:
      os.killpg(run.pid, signal.SIGINT)
    assert run.wait(30) == 130
  seconds = time.monotonic() - begun
  assert seconds < SOON
  assert times == 2 or seconds > moment


DONE = """
import atexit, time
from byol_flax.runs import interrupts
interrupts.listen("interrupted.")
atexit.register(time.sleep, 30)
atexit.register(print, "leaving", flush=True)
interrupts.end(3)
"""


def test_a_process_that_is_done_keeps_its_status_and_says_nothing():
  run = start("-c", DONE)
  assert run.stdout.readline() == "leaving\n"
  code, errors, seconds = interrupt(run)
  assert (code, errors) == (3, "")
  assert seconds < SOON


@pytest.mark.slow
def test_what_was_ignored_at_the_start_stays_so():
  """As SIGHUP is under nohup, and SIGINT in the background of a script."""
  ignored = (signal.SIGINT, signal.SIGHUP)
  with start("-c", LAST_WORDS.format(seconds=1.5), ignored=ignored) as run:
    assert run.stdout.readline() == "ready\n"
    for number in ignored:
      run.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
      run.wait(2)
    run.kill()


@pytest.mark.slow
def test_ctrl_c_on_one_process_ends_all_at_once_or_after_a_save(tmp_path):
  workdir = tmp_path / "run"

  def begin(*flags):
    flags = [*soak.short(soak.LONG), "--config.loader.num_workers=1", *flags]
    return trainers.Trainers(workdir, flags, processes=2, devices=1)

  def wait_in(run, true):
    deadline = time.monotonic() + 300
    while not true() and run.running() and time.monotonic() < deadline:
      time.sleep(0.05)
    if not (true() and run.running()):
      run.kill()
      raise AssertionError(run.logs())

  run = begin()
  wait_in(run, lambda: "compiling" in run.log(0))
  run.signal(1, signal.SIGINT)
  assert run.wait(60) == [130, 130], run.logs()
  assert run.log(1).endswith(SENTENCE)
  assert "ended: interrupted." in run.log(0)
  assert "Traceback" not in run.logs()

  run = begin("--config.checkpoint.save_on_interrupt=true")
  wait_in(run, lambda: trainers.last_update(workdir) >= 3)
  run.signal(0, signal.SIGINT)
  assert run.wait(120) == [130, 75], run.logs()
  assert "byol: interrupted; saving after the update under way" in run.log(0)
  assert "byol: interrupted, and saved; the same command" in run.log(0)
  (saved,) = trainers.saves(workdir)[-1:]
  assert saved == trainers.last_update(workdir) < soak.LONG
  time.sleep(2)  # workers look for their parent once a second
  assert not trainers.orphans()
