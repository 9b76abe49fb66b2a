"""What the controller reads of the workdir: checkpoints, signs of life."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Sequence

from launch.controller.calls import Answer, Console

LOOK_SECONDS = 120
# The file that makes a checkpoint in a bucket complete: Orbax,
# checkpoint/_src/path/atomicity.py. A local one gets its name at that moment.
_COMPLETE = "commit_success.txt"


class Workdir:
  """The folder of the run.

  Args:
    path: gs://BUCKET/FOLDER or an absolute path, without a slash at the end.
    console: what programs are run by.
  """

  def __init__(self, path: str, console: Console) -> None:
    self.path = path
    self._console = console
    self.remote = self.path.startswith("gs://")

  @property
  def readable(self) -> bool:
    """Whether it can be read from here, and not only by the workers."""
    return self.remote or os.path.isdir(self.path)

  def newest(self) -> int | None:
    """The newest checkpoint, -1 if there is none, None if that is unknown."""
    if not self.readable:
      return None
    if not self.remote:
      names = (x.name for x in pathlib.Path(self.path, "checkpoints").glob("*"))
      return max((int(x) for x in names if x.isdigit()), default=-1)
    pattern = f"{self.path}/checkpoints/*/{_COMPLETE}"
    answer = self._gcloud("ls", pattern)
    if answer.status and not answer.error_matches("matched no objects"):
      return None
    steps = re.findall(rf"/([0-9]+)/{_COMPLETE}", answer.out)
    return max(map(int, steps), default=-1)

  def sign_of_life(self, attempt: str, workers: Sequence[int]) -> str | None:
    """A text that changes while the run goes on; None if that is unknown.

    It is made from the times of the run's metrics and of the logs of those
    workers, which each of them brings to the workdir every few minutes.
    """
    if not self.readable:
      return None
    names = [f"logs/{attempt}/worker-{number}.log" for number in workers]
    paths = [f"{self.path}/{name}" for name in ["metrics.jsonl", *names]]
    if self.remote:
      answer = self._gcloud("ls", "--long", *paths)
      found = "gs://" in answer.out
      missing = answer.error_matches("matched no objects")
      return answer.out if found or missing or not answer.status else None
    stats = [os.stat(path) for path in paths if os.path.exists(path)]
    return " ".join(f"{stat.st_mtime_ns} {stat.st_size}" for stat in stats)

  def why_deleted(self, attempt: str) -> str:
    """Why worker 0 has deleted the slice, see tending.sh; "" if it has not."""
    name = f"{self.path}/logs/{attempt}/deleted.txt"
    if self.remote:
      answer = self._gcloud("cat", name)
      return "" if answer.status else answer.out.strip()
    path = pathlib.Path(name)
    return path.read_text().strip() if path.is_file() else ""

  def _gcloud(self, *words: str) -> Answer:
    return self._console.run(("gcloud", "storage", *words), LOOK_SECONDS)
