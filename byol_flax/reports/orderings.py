"""Which orderings of the paper's rows are found again elsewhere."""

import dataclasses
import itertools
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence

from byol_flax.reports.ablations import Number

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
ALIKE = "the same settings here"
DIVERGED = "a run diverged"
VERDICTS = (HOLDS, FAILS, UNDECIDED, ALIKE, DIVERGED)


@dataclasses.dataclass(frozen=True)
class Ordering:
  """Two rows of which the paper finds one better.

  Attributes:
    better: the row that is better in the paper.
    worse: the other one.
    paper: how much better, in points.
    ours: how much better it is here, by the runs that did not diverge; negative
      if it is worse, None if all runs of a row diverged.
    verdict: one of `VERDICTS`.
  """

  better: str
  worse: str
  paper: float
  ours: float | None
  verdict: str


def spread(values: Sequence[float]) -> float | None:
  """Half of the range, as the paper prints it (§5); None of a single value."""
  return (max(values) - min(values)) / 2 if len(values) > 1 else None


def judge(
  paper: Mapping[str, Number],
  ours: Mapping[str, Sequence[float]],
  settings: Mapping[str, str],
  diverged: Collection[str] = (),
) -> list[Ordering]:
  """Judges every pair of rows that the paper's spread tells apart.

  Two rows are told apart if their means differ by more than both spreads
  together, so that mean ± spread of one does not reach that of the other. Ours
  are judged in the same way; a single seed has no spread and decides nothing.
  Nor do the runs that are left where others of the row diverged: they are not
  a fair sample of it.

  Args:
    paper: row -> what the paper has.
    ours: row -> values of the seeds; rows without any are left out.
    settings: row -> what tells its settings from those of other rows.
    diverged: rows of which at least one seed did.

  Returns:
    The orderings, in the order of the rows.
  """
  return list(_judged(paper, ours, settings, diverged))


def _judged(
  paper: Mapping[str, Number],
  ours: Mapping[str, Sequence[float]],
  settings: Mapping[str, str],
  diverged: Collection[str],
) -> Iterator[Ordering]:
  measured = [name for name in paper if ours.get(name) or name in diverged]
  for pair in itertools.combinations(measured, 2):
    better, worse = sorted(pair, key=lambda name: -paper[name].mean)
    gap = paper[better].mean - paper[worse].mean
    if gap <= paper[better].spread + paper[worse].spread:
      continue
    values = ours.get(better, ()), ours.get(worse, ())
    if settings[better] == settings[worse]:
      verdict = ALIKE
    elif better in diverged or worse in diverged:
      verdict = DIVERGED
    else:
      verdict = _verdict(*values)
    yield Ordering(better, worse, gap, _difference(*values), verdict)


def _difference(
  better: Sequence[float], worse: Sequence[float]
) -> float | None:
  """Between two means; None if one is missing."""
  if not better or not worse:
    return None
  return statistics.fmean(better) - statistics.fmean(worse)


def _verdict(better: Sequence[float], worse: Sequence[float]) -> str:
  """What a difference says beside the spreads of both rows."""
  found = statistics.fmean(better) - statistics.fmean(worse)
  spreads = spread(better), spread(worse)
  known = [one for one in spreads if one is not None]
  if len(known) < len(spreads) or abs(found) <= sum(known):
    return UNDECIDED
  return HOLDS if found > 0 else FAILS
