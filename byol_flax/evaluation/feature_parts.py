"""Features computed so far: a folder of parts, from which a command goes on.

A part holds the features of consecutive images of a split, without those that
cannot be read. It appears whole or not at all. Process 0 alone uses this.
"""

import contextlib
import dataclasses
import json
import re
import time
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from byol_flax.evaluation import place
from byol_flax.runs.workdir import differences
from input_pipeline import locks, whole_files
from input_pipeline.errors import RunError, UsageError

_IDENTITY = "features.json"
_LOCK = "features.lock"
_PART = re.compile(r"rows-(?P<start>\d{12})-(?P<stop>\d{12})\.npz")
_OURS = re.compile(rf"{_IDENTITY}|{_LOCK}|{_PART.pattern}|.*\.tmp|\.writable")
# A part ends with whichever of the three comes first. So memory is bounded, and
# a kill costs little on slow devices, too.
_BYTES = 16 * 2**20
_MOST_ROWS = 8192
_SECONDS = 30.0
# Weights are told apart by digests; another commit may go on.
MAY_CHANGE = ("encoder.code_version.", "encoder.trained_by.")


def rows_of(width: int) -> int:
  """The most images of a part, if representations [F] have this `width`."""
  return max(1, min(_MOST_ROWS, _BYTES // (4 * width)))


@dataclasses.dataclass
class Parts:
  """The parts of one folder.

  Attributes:
    folder: where they lie.
    rows: the most images of a part, but for what its last batch has more.
    stop: how many images of the split are done; their parts are in the folder.
  """

  folder: epath.Path
  rows: int
  stop: int = 0
  _pending: list[dict[str, np.ndarray]] = dataclasses.field(
    default_factory=list
  )
  _seen: int = 0
  _written: float = dataclasses.field(default_factory=time.monotonic)

  def add(self, batch: Mapping[str, np.ndarray], total: int) -> None:
    """Takes the next images; a kill loses those since the last part.

    Args:
      batch: "representation" [B, F], "label", int [B], and "mask", bool [B]:
        which rows count.
      total: images of the split; the last batch may be longer.

    Raises:
      RunError: a representation is not finite.
    """
    counts = batch["mask"]
    rows = {
      "number": self._seen + np.flatnonzero(counts),
      "label": batch["label"][counts].astype(np.int32),
      "representation": batch["representation"][counts].astype(np.float32),
    }
    if not np.isfinite(rows["representation"]).all():
      raise RunError(
        "The encoder gives features that are not finite numbers, of some of "
        f"the images {self._seen:,} to {self._seen + len(counts):,}. Take "
        "another checkpoint: --encoder=WORKDIR@STEP."
      )
    self._pending.append(rows)
    self._seen = min(self._seen + len(counts), total)
    full = self._seen - self.stop >= self.rows
    if full or time.monotonic() - self._written > _SECONDS:
      self.flush()

  def flush(self) -> None:
    """Writes what was added since the last part."""
    if not self._pending:
      return
    whole_files.write_arrays(
      self.folder / f"rows-{self.stop:012}-{self._seen:012}.npz",
      {
        name: np.concatenate([rows[name] for rows in self._pending])
        for name in self._pending[0]
      },
    )
    self.stop, self._pending = self._seen, []
    self._written = time.monotonic()

  def read(self, name: str) -> Iterator[np.ndarray]:
    """Yields one array of every part, in order; see `feature_files.Pieces`.

    Raises:
      RunError: a part is damaged.
    """
    for path, _ in self._chain():
      try:
        with path.open("rb") as file, np.load(file) as arrays:
          found = arrays[name]
      except (zipfile.BadZipFile, ValueError, KeyError):
        raise RunError(
          f"{path} is damaged. Remove it; the same command computes it again."
        ) from None
      yield found

  def remove(self) -> None:
    """Removes what this command has written, and the folder if it is empty."""
    identity = self.folder / _IDENTITY
    for path in self.folder.iterdir():
      if _OURS.fullmatch(path.name) and path != identity:
        path.unlink()
    identity.unlink(missing_ok=True)  # no part is without it, see claim
    if not any(self.folder.iterdir()):
      self.folder.rmdir()

  def claim(self, identity: Mapping[str, Any]) -> None:
    """Makes the folder that of `identity`, and finds what is done already.

    Args:
      identity: a JSON object: which encoder, which images, and how.

    Raises:
      UsageError: the folder holds parts of other features.
    """
    path = self.folder / _IDENTITY
    now = json.loads(json.dumps(identity))
    if path.exists():
      before = place.completed(whole_files.read_object(path), now)
      different = differences(before, now, MAY_CHANGE)
    else:
      different = []
      for part in self._all():  # nobody knows of which features it is
        part.unlink()
    if different and self._chain():
      raise UsageError(
        f"{self.folder} holds parts of other features "
        f"({'; '.join(different)}). Remove it, or give another --out."
      )
    whole_files.write_text(path, json.dumps(now, indent=2) + "\n")
    chain = self._chain()
    self.stop = self._seen = chain[-1][1] if chain else 0
    # What follows a part that was removed is computed again.
    for other in set(self._all()) - {path for path, _ in chain}:
      other.unlink()

  def _all(self) -> dict[epath.Path, tuple[int, int]]:
    """Every part -> its first image and the one after its last."""
    found = ((_PART.fullmatch(x.name), x) for x in self.folder.iterdir())
    return {x: (int(m["start"]), int(m["stop"])) for m, x in found if m}

  def _chain(self) -> list[tuple[epath.Path, int]]:
    """The parts from the first image on without a gap, and where each ends."""
    chain: list[tuple[epath.Path, int]] = []
    for path, (start, stop) in sorted(self._all().items()):
      if start == (chain[-1][1] if chain else 0):
        chain.append((path, stop))
    return chain


@contextlib.contextmanager
def opened(
  folder: str, rows: int, identity: Mapping[str, Any]
) -> Iterator[Parts]:
  """Opens the folder, which is made if absent, and keeps other commands out.

  A bucket cannot be locked, so nothing keeps them out there.

  Raises:
    UsageError: it is not ours, holds other features, or is in use.
  """
  place = epath.Path(folder)
  if reason := whole_files.why_unwritable(folder):
    raise UsageError(f"{folder} cannot be written to ({reason}).")
  others = [x.name for x in place.iterdir() if not _OURS.fullmatch(x.name)]
  if others:
    raise UsageError(
      f"{folder} is where `byol features` keeps its parts, and it holds "
      f"{', '.join(sorted(others)[:3])}, which is none. Move it away, or give "
      "another --out."
    )
  parts = Parts(place, rows)
  with contextlib.ExitStack() as until_the_end:
    if not folder.startswith("gs://"):
      try:
        until_the_end.enter_context(locks.taken(f"{folder}/{_LOCK}"))
      except locks.TakenError as holder:
        raise UsageError(
          f"Another command ({holder}) is writing to {folder}; end it first, "
          "or give another --out."
        ) from None
    parts.claim(identity)
    yield parts
