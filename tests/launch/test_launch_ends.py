"""However a command ends, its slice is deleted or named, and no other is."""

import os
import pty
import signal
import time

import pytest

from launch.controller.calls import Console
from launch.controller.ending import Ended, Interrupted, end_of
from tests.fake_cloud.rig import PATIENCE, START, WORKDIR, verb_of

pytest_plugins = ("tests.fake_cloud.fixtures",)
# Each test starts dozens of programs.
pytestmark = pytest.mark.slow

ALWAYS = ("byol_digits", "--slice=v3-32", WORKDIR, "--yes", "--delete=always")


def raises(error):
  def work():
    raise error

  return work


@pytest.mark.parametrize(
  ("work", "status", "in_time"),
  [
    (lambda: None, 0, True),
    (raises(Ended(75, "a", in_time=True)), 75, True),
    (raises(Ended(2, "a")), 2, False),
    (raises(Interrupted(129)), 129, False),
    (raises(ZeroDivisionError()), 1, False),
    (raises(MemoryError()), 1, False),
  ],
)
def test_whatever_happens_is_an_end(work, status, in_time):
  end = end_of(work)
  assert (end.status, end.in_time) == (status, in_time)
  assert end.interrupted == (status == 129)


def test_a_program_that_cannot_be_started_is_an_answer():
  answer = Console(dry_run=False).run(("/nowhere/gcloud", "a"), 5)
  assert answer.status
  assert "No such file" in answer.last_error


@pytest.mark.parametrize("typed", [b"\x04", signal.SIGINT])
def test_a_question_without_an_answer_deletes_no_slice(rig, typed):
  rig.run("up", "byol_digits", "--name=other", "--slice=v3-32", "--yes")
  terminal, side = pty.openpty()
  words = ("byol_r50x1", "--slice=v3-512", WORKDIR, "--name=other")
  process = rig.start(*words, "--delete=always", stdin=side)
  os.close(side)
  assert process.stdout.read(2) == "Go"
  if isinstance(typed, bytes):
    os.write(terminal, typed)
  else:
    # The first one may come just before the read that it is to interrupt.
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
      process.send_signal(typed)
      time.sleep(0.1)
  _, errors = process.communicate(timeout=PATIENCE)
  os.close(terminal)
  assert process.returncode == (2 if isinstance(typed, bytes) else 130)
  assert errors.endswith("Nothing was created.\n")
  assert rig.verbs == ["create", *START[:3]]


def test_a_terminal_that_is_closed_deletes_the_slice(rig):
  rig.plan(runs=[{"polls": 999}])
  process = rig.start(*ALWAYS)
  rig.wait_for("state", 3)
  process.stderr.close()  # what is said now meets an error
  process.send_signal(signal.SIGHUP)
  process.wait(PATIENCE)
  # A slice whose run has come to its end would be deleted, too.
  assert [verb_of(call) for call in rig.calls].count("state") < 999
  assert rig.verbs == ["create", *START, "delete"]


def test_a_command_that_nohup_started_does_not_mind(rig):
  process = rig.start(*ALWAYS, ignored=[signal.SIGHUP])
  rig.wait_for("create", 1)
  process.send_signal(signal.SIGHUP)
  process.communicate(timeout=PATIENCE)
  assert process.returncode == 0


def test_google_that_says_nothing_leaves_no_slice(rig):
  looks = ["ok", "ok"]  # for a queue, and for the slice
  rig.plan(describe=[*looks, "503", "503"])
  rig.run(*ALWAYS, status=1, BYOL_MAX_TRIES="2")
  assert rig.verbs == ["create", "delete"]


def test_a_slice_that_up_could_not_set_up_is_deleted_if_asked(rig):
  rig.plan(setup=[[1]] * 2)
  result = rig.run("up", *ALWAYS, status=1, BYOL_MAX_TRIES="2")
  assert rig.verbs == ["create", *START[:3], "setup", "delete"]
  assert "byol-digits could not be set up." in result.stderr


def test_a_slice_on_which_something_runs_is_not_set_up(rig):
  rig.plan(runs=[{"polls": 999}])
  process = rig.start(*ALWAYS, "--delete=never")
  rig.wait_for("state", 3)
  process.terminate()
  process.communicate(timeout=PATIENCE)
  result = rig.run("up", *ALWAYS, status=2)
  assert rig.verbs == ["create", *START]
  assert "byol-digits already runs something; stop it first" in result.stderr


def test_the_command_that_lets_a_slice_delete_itself_names_its_account(rig):
  rig.plan(may="no")
  result = rig.run(*ALWAYS)
  assert "The slice may not delete itself" in result.stderr
  number = "--member=serviceAccount:1234567890-compute@developer."
  assert number in result.stderr
