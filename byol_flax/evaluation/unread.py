"""What an evaluation could not read: counted, told, and kept to be mended.

Images of a split that cannot be read are left out of what is measured on it, so
a result says how many they are. Lists of them, as `unreadable` has them, lie in
a folder of the evaluation, so that they may be mended.
"""

import math
from collections.abc import Mapping, Sequence

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
    self._complete = True

  def opened(self, key: str, split: sources.Source) -> None:
    """Takes the split that a key of the config names."""
    self._opened[key] = split

  def add(self, split: sources.Source, numbers: Sequence[int]) -> list[int]:
    """Takes what could not be read of a split; returns what is new of it."""
    if not numbers:
      return []
    whole, places = _within(split)
    known = self._numbers.setdefault(whole.split, set())
    new = [i for i in numbers if int(places[i]) not in known]
    known.update(places[new].tolist())
    return new

  def trained(self, source: sources.Source, numbers: Sequence[int]) -> None:
    """Takes what a training could not read, where neighbours stood in."""
    if isinstance(source, subsets.Joined):
      end = len(source.first)
      self.trained(source.first, [i for i in numbers if i < end])
      self.trained(source.second, [i - end for i in numbers if i >= end])
      return
    self.add(source, [i for i in numbers if i < len(source)])

  def count(self, split: sources.Source) -> int | None:
    """How many of a split; None if an older version kept scores uncounted."""
    return len(self._of(split)) if self._complete else None

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
      if (missing := self._of(split)) and place.is_claimed(workdir):
        path = _list_of(workdir, key)
        path.parent.mkdir(exist_ok=True)
        listed = {x.position for x in unreadable.read(path)}
        unreadable.write(path, split, set(missing) - listed)

  def check(self, workdir: str, max_share: float) -> None:
    """Raises UsageError if more is missing of a split than may be."""
    for key, split in self._opened.items():
      missing, total = self._of(split), len(split)
      if len(missing) == total:
        raise UsageError(
          f"None of the {total:,} images of {split.split} ({key}) could be "
          f"read, such as {named(split, missing)}. Restore them, and give the "
          "command again."
        )
      if len(missing) <= max_share * total:
        continue
      raise UsageError(
        f"{len(missing):,} of the {total:,} images of {split.split} ({key}) "
        "could not be read, more than the allowed share of "
        f"{max_share:g}: {named(split, missing)}. "
        + (
          f"All names are in {_list_of(workdir, key)}. "
          if place.is_claimed(workdir)
          else ""
        )
        + unreadable.way_out(
          split,
          "max_unreadable_share",
          may_be_removed=not dense_sources.is_dense(split),
        )
      )

  def _of(self, split: sources.Source) -> list[int]:
    """Numbers of what is missing of a split."""
    whole, places = _within(split)
    if not (missing := self._numbers.get(whole.split)):
      return []
    return np.flatnonzero(np.isin(places, [*missing])).tolist()


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
    if path == _list_of(workdir, own := path.stem.partition("-")[2]):
      return own
    return _TRAIN if line.position < end else _VALID

  return unreadable.began_with(
    line
    for path in epath.Path(workdir).glob(f"*/{unreadable.FILES}")
    for line in unreadable.read(path)
    if folder_of.get(key_of(path, line)) == folder_of.get(key)
  )


def _list_of(workdir: str, key: str) -> epath.Path:
  """The list of what could not be read of a split when it was measured."""
  return epath.Path(workdir, place.LISTS, f"unreadable-{key}.txt")


def _within(split: sources.Source) -> tuple[sources.Source, np.ndarray]:
  """The whole split that a source is a part of, and the places of its images.

  Returns:
    The whole, and for each image of the part its number there, int [N].
  """
  numbers = np.arange(len(split))
  while isinstance(split, sources.Part):
    numbers, split = np.asarray(split.examples)[numbers], split.source
  return split, numbers
