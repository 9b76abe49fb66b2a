"""What an evaluation could not read: counted, told, and kept to be mended.

Images of a split that cannot be read are left out of what is measured on it, so
a result says how many they are. Lists of them, as `unreadable` has them, lie in
a folder of the evaluation, so that they may be mended.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from etils import epath

from byol_flax.evaluation import place
from input_pipeline import dense_sources, sources, subsets, unreadable
from input_pipeline.errors import UsageError

_TRAIN, _VALID = "train_split", "valid_split"
_NAMED = 5  # how many images a message names

# Name of a whole split -> numbers of its images, for JSON.
Numbers = Mapping[str, Sequence[int]]


class Unread:
  """The images that no reading, or not every one, of an evaluation could read.

  All processes of an evaluation hold the same.
  """

  def __init__(self) -> None:
    """Nothing is missing, and no split is open."""
    self._opened: dict[str, sources.Source] = {}
    self._numbers: dict[str, set[int]] = {}
    self._seen: dict[str, set[int]] = {}  # of them, what this start could not
    self._complete = True

  def opened(self, key: str, split: sources.Source) -> None:
    """Takes the split that a key of the config names."""
    self._opened[key] = split

  def add(self, split: sources.Source, numbers: Sequence[int]) -> list[int]:
    """Takes what this start could not read of a split; returns what is new."""
    if not numbers:
      return []
    whole, places = _within(split)
    found = places[numbers].tolist()
    known = self._numbers.setdefault(whole.split, set())
    new = [i for i, at in zip(numbers, found, strict=True) if at not in known]
    known.update(found)
    self._seen.setdefault(whole.split, set()).update(found)
    return new

  def trained(self, source: sources.Source, numbers: Sequence[int]) -> None:
    """Takes what a training could not read, where neighbours stood in.

    It may have been mended since, and the training itself has refused too much.
    """
    if isinstance(source, subsets.Joined):
      end = len(source.first)
      self.trained(source.first, [i for i in numbers if i < end])
      self.trained(source.second, [i - end for i in numbers if i >= end])
      return
    whole, places = _within(source)
    found = places[[i for i in numbers if i < len(source)]].tolist()
    self.kept({whole.split: found} if found else {})

  def count(self, split: sources.Source) -> int | None:
    """How many of a split; None if an older version kept scores uncounted."""
    return len(_of(split, self._numbers)) if self._complete else None

  def as_json(self) -> Numbers:
    """What to keep with a score."""
    return {name: sorted(found) for name, found in self._numbers.items()}

  def kept(self, numbers: Numbers | None) -> None:
    """Takes what an earlier start kept; None if it was of an older version."""
    self._complete &= numbers is not None
    for name, found in (numbers or {}).items():
      self._numbers.setdefault(name, set()).update(found)

  def list_in(self, workdir: str) -> None:
    """Adds to the lists in the folder of an evaluation what they lack."""
    for key, split in self._opened.items():
      missing = _of(split, self._numbers)
      if missing and place.is_claimed(workdir):
        path = place.list_of(workdir, key)
        path.parent.mkdir(exist_ok=True)
        listed = {(x.position, x.name) for x in unreadable.read(path)}
        unreadable.write(
          path,
          split,
          [
            i
            for i in missing
            if (i, unreadable.name_of(split, i)) not in listed
          ],
        )

  def check(self, workdir: str, max_share: float) -> None:
    """Raises UsageError if this start misses more of a split than may be.

    What was missing from kept scores may have been mended since. What was
    removed since does not count, unless nothing is left.
    """
    for key, split in self._opened.items():
      missing, total = _of(split, self._seen), len(split)
      if len(missing) == total:
        raise UsageError(
          f"None of the {total:,} images of {split.split} ({key}) could be "
          f"read, such as {named(split, missing)}. Restore them, and give the "
          "command again."
        )
      missing = unreadable.too_many(split, missing, max_share)
      if not missing:
        continue
      raise UsageError(
        f"{len(missing):,} of the {total:,} images of {split.split} ({key}) "
        "could not be read, more than the allowed share of "
        f"{max_share:g}: {named(split, missing)}. "
        + (
          f"All names are in {place.list_of(workdir, key)}. "
          if place.is_claimed(workdir)
          else ""
        )
        + unreadable.way_out(
          split,
          "max_unreadable_share",
          may_be_removed=not dense_sources.is_dense(split),
        )
      )


def named(split: sources.Source, numbers: Sequence[int]) -> str:
  """The names of some of these images."""
  more = ", ..." if len(numbers) > _NAMED else ""
  return ", ".join(map(split.example_name, numbers[:_NAMED])) + more


def began_with(workdir: str, key: str) -> dict[str, int]:
  """Files of a split that could not be read, see `sources.open_source`.

  A training on train and valid together counts the images of valid after those
  of train. Splits of one fingerprint lie in one folder, so what was found in
  one of them holds for the others.

  Args:
    workdir: of the evaluation.
    key: of the config that names the split.
  """
  images = place.images_of(workdir)
  if not place.is_claimed(workdir) or key not in {_TRAIN, *images}:
    return {}
  folder_of = {name: x.get("data_fingerprint") for name, x in images.items()}
  end = images.get(_TRAIN, {}).get("num_examples", math.inf)

  def key_of(path: epath.Path, line: unreadable.Line) -> str:
    own = path.stem.partition("-")[2]
    if path == place.list_of(workdir, own):
      return own
    return _TRAIN if line.position < end else _VALID

  def of_its_folder(own: str) -> bool:
    if own == key:
      return True
    return key in folder_of and folder_of.get(own) == folder_of[key]

  return unreadable.began_with(
    line
    for path in epath.Path(workdir).glob(f"*/{unreadable.FILES}")
    for line in unreadable.read(path)
    if of_its_folder(key_of(path, line))
  )


def _of(
  split: sources.Source, numbers: Mapping[str, Collection[int]]
) -> list[int]:
  """Which images of a split are among these of whole ones."""
  whole, places = _within(split)
  if not (missing := numbers.get(whole.split)):
    return []
  return np.flatnonzero(np.isin(places, [*missing])).tolist()


def _within(split: sources.Source) -> tuple[sources.Source, np.ndarray]:
  """The whole split that a source is a part of, and the places of its images.

  Returns:
    The whole, and for each image of the part its number there, int [N].
  """
  numbers = np.arange(len(split))
  while isinstance(split, sources.Part):
    numbers, split = np.asarray(split.examples)[numbers], split.source
  return split, numbers
