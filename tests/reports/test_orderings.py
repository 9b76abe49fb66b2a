"""Orderings of an ablation, judged from numbers made by hand."""

import pytest

from byol_flax.reports import orderings
from byol_flax.reports.ablations import Number
from byol_flax.reports.orderings import ALIKE, DIVERGED, FAILS, HOLDS, UNDECIDED

PAPER = {
  "best": Number.parse("72.5"),  # ± 0.25 at most
  "near": Number.parse("72.0"),  # not told apart from best: 0.5 is not more
  "wide": Number.parse("68.0 ± 4.0"),  # nor this one: 4.5 is not above 4.25 by
  "bad": Number.parse("3.2 ± 2.9"),
}


def judged(ours, settings=None, diverged=()):
  found = orderings.judge(
    PAPER, ours, settings or {name: name for name in PAPER}, diverged
  )
  return {(one.better, one.worse): one for one in found}


def test_which_pairs_the_paper_tells_apart():
  found = judged(dict.fromkeys(PAPER, (50.0, 50.0)))
  assert set(found) == {
    ("best", "wide"),
    ("best", "bad"),
    ("near", "bad"),
    ("wide", "bad"),
  }
  assert found["near", "bad"].paper == pytest.approx(68.8)


@pytest.mark.parametrize(
  ("best", "bad", "verdict"),
  [
    ((80.0, 84.0), (70.0, 72.0), HOLDS),  # 82 ± 2 and 71 ± 1
    ((70.0, 72.0), (80.0, 84.0), FAILS),
    ((80.0, 84.0), (78.0, 80.0), UNDECIDED),  # 82 ± 2 and 79 ± 1: they touch
    ((80.0, 84.0), (77.9, 79.9), HOLDS),
    ((80.0, 80.0, 86.0), (70.0,), UNDECIDED),  # one seed has no spread
  ],
)
def test_ours_are_judged_by_their_own_spread(best, bad, verdict):
  found = judged({"best": best, "bad": bad})
  assert list(found) == [("best", "bad")]
  assert found["best", "bad"].verdict == verdict
  assert found["best", "bad"].ours == pytest.approx(
    sum(best) / len(best) - sum(bad) / len(bad)
  )


def test_rows_without_numbers_and_rows_that_are_the_same_run():
  assert judged({"best": (80.0, 84.0), "bad": ()}) == {}
  ours = {"best": (80.0, 84.0), "bad": (80.0, 84.0)}
  found = judged(ours, {"best": "a", "bad": "a"})
  assert found["best", "bad"].verdict == ALIKE


def test_what_a_diverged_row_has_left_decides_nothing():
  for left, ours in (((70.0, 72.0), 11.0), ((), None)):
    found = judged({"best": (80.0, 84.0), "bad": left}, diverged={"bad"})
    assert found["best", "bad"].verdict == DIVERGED
    assert found["best", "bad"].ours == ours


def test_spread_is_half_of_the_range():
  assert orderings.spread((3.0, 10.0, 4.0)) == 3.5
  assert orderings.spread((3.0,)) is None
