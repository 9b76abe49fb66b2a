"""Decisions of the launcher, as tables: no process, no clock."""

import pytest

from launch.controller.attempts import (
  BLIND,
  BUSY,
  GONE,
  SHUT,
  SILENT,
  UNMOUNTED,
  UNREADY,
  History,
  Limits,
  Look,
  Watch,
  after,
  judge,
  unbegun,
)
from launch.controller.calls import Answer
from launch.controller.workers import Run, read_check

LIMITS = Limits(straggler=600, silent=600, stuck=3600, between_looks=360)
RUNNING = Run("running", answered=("w-0", "w-1"))
HALF = Run("running", answered=("w-0",), silent=1)
NONE = Run("unreachable", silent=2)
MIXED = Run("mixed", ("1",), answered=("w-0",), silent=1)
HANGING = Run("mixed", ("1",), answered=("w-0", "w-1"))
WRONG = Run("mixed", ("2",), answered=("w-0",), silent=1)


def events(looks):
  """What is decided after each (slice, run, life, seconds since the last)."""
  watch, now, said = Watch(), 0.0, []
  for slice_, run, life, gap in looks:
    now += gap
    watch, verdict = judge(watch, Look(slice_, run, life, 1e6 + now), LIMITS)
    said.append(verdict.event or ("halt" if verdict.halt else ""))
  return said


def minutes(run, count, life=lambda minute: "same", slice_="ready"):
  return [(slice_, run, life(minute), 60) for minute in range(count)]


@pytest.mark.parametrize(
  ("looks", "last", "first_at"),
  [
    # After ten minutes in which Google answered and no file changed.
    (minutes(HALF, 30), SILENT, 10),
    (minutes(NONE, 30), SILENT, 10),
    # The run goes on: only ssh is broken.
    (minutes(HALF, 90, life=str), "", None),
    # The workdir cannot be read from here: others must have answered.
    (minutes(HALF, 30, life=lambda _: None), SILENT, 10),
    (minutes(NONE, 90, life=lambda _: None), "", None),
    # A network that is lost, or a look that found all, begins the count anew.
    (
      minutes(HALF, 9)
      + minutes(None, 90, slice_="unknown")
      + minutes(HALF, 9)
      + minutes(RUNNING, 1)
      + minutes(HALF, 9),
      "",
      None,
    ),
    # A laptop that slept for a night between two looks has lost six minutes.
    (
      [
        ("ready", HALF, "a", 60),
        ("ready", HALF, "a", 30000),
        ("ready", HALF, "a", 60),
      ],
      "",
      None,
    ),
    (minutes(MIXED, 30), SILENT, 10),
    (minutes(WRONG, 30), "2", 10),
    (minutes(HANGING, 30), "halt", 10),
    (minutes(None, 90, slice_="waiting"), "stuck", 60),
    (minutes(None, 9000, slice_="queued"), "", None),
    (minutes(None, 90, slice_="unknown"), "", None),
  ],
)
def test_what_lasts_too_long(looks, last, first_at):
  said = events(looks)
  decided = [index for index, event in enumerate(said) if event]
  assert (decided[0] if decided else None) == first_at
  assert said[-1] == last


@pytest.mark.parametrize(
  ("slice_", "run", "overtime", "event"),
  [
    ("dead", None, True, "gone"),
    ("absent", None, False, "deleted"),
    ("held", None, False, "held"),
    ("ready", RUNNING, False, ""),
    ("ready", RUNNING, True, "hours"),
    ("unknown", None, True, "hours"),
    # Worker 0 ended it when the hours were over; a result is a result.
    ("ready", Run("exited", ("75", "75")), True, "hours"),
    ("ready", Run("exited", ("0", "0")), True, "0"),
    ("ready", Run("exited", ("1", "lost")), False, "lost"),
    ("ready", Run("exited", ("1", "137")), False, "137"),
    ("ready", Run("stopped", ("75",)), False, "stopped"),
    ("ready", Run("absent"), False, "75"),
  ],
)
def test_one_look(slice_, run, overtime, event):
  _, verdict = judge(Watch(), Look(slice_, run, None, 5.0, overtime), LIMITS)
  assert verdict.event == event


@pytest.mark.parametrize(
  ("slice_", "event"),
  [
    ("dead", "gone"),
    ("absent", "deleted"),
    ("held", "held"),
    ("ready", "unreached"),
    ("waiting", "unready"),
    ("unknown", "unready"),
  ],
)
def test_an_attempt_that_cannot_begin(slice_, event):
  assert unbegun(slice_) == event


@pytest.mark.parametrize(
  ("ends", "restarts", "words"),
  [
    # However an attempt ended, three without a newer checkpoint are enough.
    ([("75", 0), ("143", 0), ("lost", 0)], 2, ". . end"),
    ([(GONE, -1), (GONE, -1), (GONE, None)], 2, ". . end"),
    # A newer checkpoint sets the count back; the first fault stays, the second
    # remakes the slice, and its first fault stays again.
    ([("1", 1), ("1", 2), ("1", 3), ("1", 4)], 0, ". new . new"),
    ([("1", 1), ("75", 1), ("1", 5), ("75", 5), ("75", 5)], 1, ". . new . end"),
    ([("137", 0), ("134", 0)], 3, ". new"),
    ([("lost", 1), ("lost", 2)], 3, ". new"),
    ([(UNMOUNTED, 0), (SHUT, 0)], 3, ". new"),
    # No new slice cures these.
    ([(BUSY, 0), (BUSY, 0), (UNREADY, 0)], 2, ". . end"),
    # A checkpoint that an unreadable workdir hides is no progress yet.
    ([("75", None), ("75", 7), ("75", None), ("75", 7)], 1, ". . . end"),
    ([(SILENT, 1), (BLIND, 2)], 0, "new new"),
    # The slice was made anew, so its next fault is the first.
    ([("1", 1), (GONE, 2), ("1", 3)], 0, ". . ."),
  ],
)
def test_what_follows_an_attempt(ends, restarts, words):
  history, said = History(newest=0), []
  for event, newest in ends:
    history, following = after(history, event, newest, restarts)
    remake = "new" if following.remake else "."
    said.append("end" if following.give_up else remake)
  assert " ".join(said) == words


@pytest.mark.parametrize(
  ("lines", "expected", "counts"),
  [
    (["w-0 ok 4", "w-1 ok 4"], 2, (0, 0, 0)),
    # An ssh that failed says nothing about the chips.
    (["w-0 ok 4"], 3, (0, 0, 2)),
    ([], 0, (0, 0, 1)),
    (["w-0 failed JAX did not start in time.", "w-1 ok 4"], 2, (0, 1, 0)),
    (["w-0 held Process 7 (a b) holds the TPU; end it."], 1, (1, 0, 0)),
  ],
)
def test_one_check(lines, expected, counts):
  text = "\n".join(f"byol-check {line}" for line in lines)
  check = read_check(Answer(out=text), expected)
  assert (len(check.busy), len(check.blind), check.missing) == counts
