"""Images that cannot be read: counted, named, and tolerated up to a share."""

import numpy as np
from etils import epath

from input_pipeline import sources
from input_pipeline.errors import UsageError


class UnreadableImages:
  """Counts and names the images that could not be read.

  Attributes:
    report: text file with one line, index and name, per image.
    indices: of the images found so far, those of earlier starts included.
  """

  def __init__(
    self, source: sources.ReadableSource, report: str, max_share: float
  ) -> None:
    """Fails past `max_share` of all images, in [0, 1]."""
    self._source = source
    self._max_share = max_share
    self.report = epath.Path(report)
    self.indices: set[int] = set()
    if self.report.exists():
      for line in self.report.read_text().splitlines():
        index = line.split("\t")[0]
        if index.isdigit():
          self.indices.add(int(index))

  def sentence(self) -> str:
    """How many there are, and where their names stand."""
    return (
      f"{len(self.indices)} image(s) could not be read; their names are in "
      f"{self.report}"
    )

  def see(self, unreadable: np.ndarray) -> None:
    """Takes a batch's "unreadable" [B] int64: index of an image, or -1.

    Raises:
      UsageError: more than the allowed share could not be read.
    """
    found = {int(i) for i in unreadable[unreadable >= 0]} - self.indices
    if not found:
      return
    with self.report.open("a") as file:
      for index in sorted(found):
        file.write(f"{index}\t{self._source.example_name(index)}\n")
    self.indices |= found
    allowed = self._max_share * len(self._source)
    if len(self.indices) > allowed:
      raise UsageError(
        f"{len(self.indices)} of {len(self._source)} images could not be read, "
        f"more than the allowed share of {self._max_share:g}; their names are "
        f"in {self.report}. Mend or remove them, or raise "
        "loader.max_unreadable_share."
      )
