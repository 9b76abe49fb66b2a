"""WORKDIR or WORKDIR@STEP: which checkpoint of which run is meant."""

import dataclasses
import re
from typing import Self

from byol_flax.runs import checkpoint
from input_pipeline.errors import UsageError

_AT_STEP = re.compile(r"(?P<workdir>.+)@(?P<step>\d+)")


@dataclasses.dataclass(frozen=True)
class Address:
  """What the command line names.

  Attributes:
    workdir: of a run, an absolute path or gs://BUCKET/PATH.
    step: which of its checkpoints, None for the newest.
  """

  workdir: str
  step: int | None

  @classmethod
  def parse(cls, text: str) -> Self:
    """Reads "WORKDIR" or "WORKDIR@STEP"; the path is absolute already."""
    found = _AT_STEP.fullmatch(text)
    if found:
      return cls(found["workdir"], int(found["step"]))
    return cls(text, None)

  def __str__(self) -> str:
    return self.workdir + ("" if self.step is None else f"@{self.step}")

  def find(self, flag: str) -> tuple[int, list[int]]:
    """The step that is meant, and the steps of all checkpoints that exist.

    Raises:
      UsageError: there is no such checkpoint. The message begins with `flag`,
        the option that named it.
    """
    steps = checkpoint.steps_in(self.workdir)
    if not steps:
      raise UsageError(
        f"{flag}={self}: there is no checkpoint in {self.workdir}, and it is "
        "no weight file; give such a file, or the "
        "--workdir of a run, and @STEP after it for one that is not the newest."
      )
    if self.step is not None and self.step not in steps:
      raise UsageError(
        f"{flag}={self}: that run has no checkpoint {self.step}; it has "
        f"{', '.join(map(str, steps))}."
      )
    return (steps[-1] if self.step is None else self.step), steps


def others(step: int, steps: list[int]) -> str:
  """What to do when checkpoint `step` out of `steps` is damaged."""
  rest = [str(other) for other in steps if other != step]
  if not rest:
    return "That run has no other."
  return f"That run has {', '.join(rest)} too; WORKDIR@STEP takes one of them."
