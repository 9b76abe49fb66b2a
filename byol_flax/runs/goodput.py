"""Where the time of a run goes, over all its attempts, by `starts.jsonl`.

Each moment of an attempt belongs to one of SPANS, so they add up to the
attempt's time; see `time_spent`. What lies between two attempts is restarting.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from byol_flax.runs.progress_line import human_duration
from input_pipeline.errors import UsageError

FILE = "starts.jsonl"
# An update is repeated if an earlier attempt made it too: that attempt ended
# before it saved. "starting" is all that belongs to nothing else: imports,
# opening the images, restoring the state, and the end.
UPDATES = ("updating", "repeating")
SPANS = (*UPDATES, "waiting", "saving", "evaluating", "compiling", "starting")
_RESTARTING = "restarting"  # between two attempts, so in none of them

_WORDS = {
  "updating": "{} in updates",
  "repeating": "{} in updates made twice",
  "waiting": "{} waiting for data",
}


@dataclasses.dataclass(frozen=True)
class Totals:
  """What all attempts of a run have spent.

  Attributes:
    attempts: how many there were.
    unknown: how many of these say nothing, because an older version made them.
    seconds: span, or "restarting" -> how long.
    images: of `UPDATES` -> how many.
  """

  attempts: int
  unknown: int
  seconds: Mapping[str, float]
  images: Mapping[str, int]

  @property
  def share(self) -> float:
    """Goodput: the share of the time that went into updates made once."""
    return self.seconds["updating"] / (sum(self.seconds.values()) or 1.0)

  def metrics(self) -> dict[str, float]:
    """For TensorBoard."""
    return {
      "goodput/share": self.share,
      **{f"goodput/{k}_seconds": x for k, x in self.seconds.items()},
      **{f"goodput/{k}_images": float(n) for k, n in self.images.items()},
    }

  def sentence(self) -> str:
    """Says "goodput 90% of 10m in 2 attempts: 9m in updates (512 images)"."""
    parts = []
    for span, seconds in self.seconds.items():
      if span in UPDATES and not self.images[span]:
        continue
      part = _WORDS.get(span, f"{{}} {span}").format(human_duration(seconds))
      if span in UPDATES:
        part += f" ({self.images[span]:,} images)"
      parts.append(part)
    known = self.attempts - self.unknown
    whole = human_duration(sum(self.seconds.values()))
    text = (
      f"goodput {self.share:.0%} of {whole} in {known} "
      f"attempt{'s' * (known != 1)}: {', '.join(parts)}"
    )
    if self.unknown:
      text += f"; {self.unknown} earlier attempt(s) did not count their time"
    return text


def totals(lines: Sequence[Mapping[str, Any]]) -> Totals:
  """Adds up the attempts of a run, in order, and the time between them.

  Args:
    lines: of `starts.jsonl`, parsed. Those without sums count as unknown, and
      so does the time before the attempt that follows.
  """
  seconds = dict.fromkeys((*SPANS, _RESTARTING), 0.0)
  images = dict.fromkeys(UPDATES, 0)
  unknown, ended = 0, None
  for line in lines:
    if "seconds" not in line:
      unknown, ended = unknown + 1, None
      continue
    if ended is not None:
      # Another host's clock may be behind.
      seconds[_RESTARTING] += max(0.0, line["began"] - ended)
    for span, spent in line["seconds"].items():
      seconds[span] += spent
    for span, count in line["images"].items():
      images[span] += count
    ended = line["began"] + sum(line["seconds"].values())
  return Totals(len(lines), unknown, seconds, images)


def of_workdir(workdir: str) -> Totals:
  """What the attempts of the run in `workdir` have spent, by `starts.jsonl`.

  Raises:
    UsageError: it is no run's folder.
  """
  lines = lines_of(epath.Path(workdir, FILE))
  if not lines:
    raise UsageError(
      f"{workdir} should be the --workdir of a run, but it has no {FILE}, "
      "which a run writes when it starts."
    )
  return totals([parsed(line) for line in lines])


def lines_of(path: epath.Path) -> list[bytes]:
  """The lines of a file, [] if it is absent."""
  try:
    return path.read_bytes().splitlines()
  except FileNotFoundError:
    return []


def parsed(line: bytes) -> dict[str, Any]:
  """A line as an object; {} if a kill has torn it."""
  try:
    found = json.loads(line)
  except ValueError:
    return {}
  return found if isinstance(found, dict) else {}
