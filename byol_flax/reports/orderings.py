"""Which orderings of the paper's rows are found again elsewhere."""

import dataclasses
import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence

from byol_flax.reports.ablations import Number

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
ALIKE = "the same settings here"
VERDICTS = (HOLDS, FAILS, UNDECIDED, ALIKE)


@dataclasses.dataclass(frozen=True)
class Ordering:
  """Two rows of which the paper finds one better.

  Attributes:
    better: the row that is better in the paper.
    worse: the other one.
    paper: how much better, in points.
    ours: how much better it is here; negative if it is worse.
    verdict: one of `VERDICTS`.
  """

  better: str
  worse: str
  paper: float
  ours: float
  verdict: str


def spread(values: Sequence[float]) -> float | None:
  """Half of the range, as the paper prints it (§5); None of a single value."""
  return (max(values) - min(values)) / 2 if len(values) > 1 else None


def judge(
  paper: Mapping[str, Number],
  ours: Mapping[str, Sequence[float]],
  settings: Mapping[str, str],
) -> list[Ordering]:
  """Judges every pair of rows that the paper's spread tells apart.

  Two rows are told apart if their means differ by more than both spreads
  together, so that mean ± spread of one does not reach that of the other. Ours
  are judged in the same way; a single seed has no spread and decides nothing.

  Args:
    paper: row -> what the paper has.
    ours: row -> values of the seeds; rows without any are left out.
    settings: row -> what tells its settings from those of other rows.

  Returns:
    The orderings, in the order of the rows.
  """
  return list(_judged(paper, ours, settings))


def _judged(
  paper: Mapping[str, Number],
  ours: Mapping[str, Sequence[float]],
  settings: Mapping[str, str],
) -> Iterator[Ordering]:
  measured = [name for name in paper if ours.get(name)]
  for pair in itertools.combinations(measured, 2):
    better, worse = sorted(pair, key=lambda name: -paper[name].mean)
    gap = paper[better].mean - paper[worse].mean
    if gap <= paper[better].spread + paper[worse].spread:
      continue
    found = statistics.fmean(ours[better]) - statistics.fmean(ours[worse])
    spreads = [spread(ours[name]) for name in pair]
    if settings[better] == settings[worse]:
      verdict = ALIKE
    else:
      verdict = _verdict(found, spreads)
    yield Ordering(better, worse, gap, found, verdict)


def _verdict(found: float, spreads: Sequence[float | None]) -> str:
  """What a difference says beside the spreads of both rows."""
  known = [one for one in spreads if one is not None]
  if len(known) < len(spreads) or abs(found) <= sum(known):
    return UNDECIDED
  return HOLDS if found > 0 else FAILS
