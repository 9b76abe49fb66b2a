"""What costs money: each case ends as it must, and the bill with it."""

import dataclasses

import pytest

from tests.fake_cloud import cases, playing

pytest_plugins = ("tests.fake_cloud.fixtures",)

QUICKLY = (
  "a worker freezes, and the run stands",
  "a fault, and nothing shall stay",
  "JAX sees no chips on a worker",
  "another program has held the chips of a worker",
  "the slice is lost again and again in the set-up",
  "a node exists that nobody sees",
)


def test_a_case_that_goes_wrong_is_told():
  case = cases.CASES["a fault, and nothing shall stay"]
  wrong = playing.Played(0, "", ["create"], case.minutes + 1, "READY")
  assert len(playing.problems(case, wrong)) == 4
  done = cases.CASES["maintenance"]
  right = playing.Played(0, done.sentence, ["create", *done.done], 1, "")
  assert playing.problems(done, right) == []
  stays = dataclasses.replace(right, slice="READY")
  assert playing.problems(done, stays) == ["The slice stays."]


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=() if name in QUICKLY else pytest.mark.slow)
    for name in cases.CASES
  ],
)
def test_a_case_ends_and_the_bill_with_it(rig, name):
  case = cases.CASES[name]
  assert playing.problems(case, playing.play_now(rig, case)) == []
