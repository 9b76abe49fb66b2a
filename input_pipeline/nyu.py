"""Opens the labelled part of NYU Depth v2, 1,449 frames in one MATLAB file.

`nyu_depth_v2_labeled.mat` is of MATLAB's version 7.3, which is HDF5. MATLAB
stores columns first, so its `images` [H, W, 3, N] lie in the file as
[N, 3, W, H], and its `depths` [H, W, N] as [N, W, H]. The depth is that with
its holes filled, in metres, which FCRN's evaluation takes too.
"""

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import scipy.io

from input_pipeline.errors import UnreadableError, UsageError

HEIGHT, WIDTH = 480, 640  # of a frame
FRAMES, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
_NUMBERS = {"train": "trainNdxs", "test": "testNdxs"}  # counted from one


class NyuFrames:
  """One split of the labelled frames; see `parts.Source`.

  "image" is uint8 [480, 640, 3] and "label" float32 [480, 640], in metres.
  Each process opens the file itself, on first use.
  """

  num_classes = 0
  most_boxes = 0
  class_names: tuple[str, ...] = ()
  ignored = ""

  def __init__(
    self, name: str, split: str, path: str, frames: np.ndarray
  ) -> None:
    """Takes the path of the frames' file, and their numbers from zero."""
    self.name = name
    self.split = split
    self.faults: Mapping[str, Sequence[str]] = {}
    self.sizes = np.full((len(frames), 2), (HEIGHT, WIDTH), np.int32)
    self._path = path
    self._frames = frames
    digest = hashlib.blake2b(frames.astype("<i8").tobytes(), digest_size=16)
    digest.update(b"%d" % os.path.getsize(path))
    self.fingerprint = digest.hexdigest()
    self._opened: tuple[int, h5py.File] | None = None
    self._lock = threading.Lock()

  def __getstate__(self) -> dict[str, Any]:
    """Leaves out what belongs to this process."""
    state = {k: v for k, v in self.__dict__.items() if k != "_lock"}
    return {**state, "_opened": None}

  def __setstate__(self, state: dict[str, Any]) -> None:
    """Is to open the file again."""
    self.__dict__.update(state, _lock=threading.Lock())

  def __len__(self) -> int:
    return len(self._frames)

  def __getitem__(self, i: int) -> dict[str, Any]:
    frame = int(self._frames[i])
    file = self._file()
    depth = np.ascontiguousarray(file["depths"][frame].T, np.float32)
    if not (np.isfinite(depth) & (depth >= 0)).all():
      raise UnreadableError("its depth has values that are no distances")
    image = file["images"][frame].transpose(2, 1, 0)
    return {"image": np.ascontiguousarray(image), "label": depth}

  def ahead(self, numbers: Sequence[int] | np.ndarray) -> None:
    """Does nothing: the file is local."""

  def _file(self) -> h5py.File:
    with self._lock:
      if self._opened is None or self._opened[0] != os.getpid():
        self._opened = os.getpid(), h5py.File(self._path, "r")
      return self._opened[1]

  def example_name(self, i: int) -> str:
    """The number of the frame in the file, from one as in MATLAB."""
    return f"{self.name} frame {self._frames[i] + 1}"

  def file_name(self, i: int) -> str:
    """The example's name, because the file holds all frames."""
    return self.example_name(i)

  def file_of(self, i: int) -> None:
    """None, because the file holds all frames."""

  def unlabelled(self) -> np.ndarray:
    """None."""
    return np.arange(0)


def open_nyu(name: str, path: str, split: str) -> NyuFrames:
  """The official split `train` (795 frames) or `test` (654).

  Args:
    name: what the source shall be called.
    path: the folder with `nyu_depth_v2_labeled.mat` and `splits.mat`.
    split: see above.

  Raises:
    UsageError: a file is absent or holds something else, or there is no such
      split.
  """
  if split not in _NUMBERS:
    raise UsageError(
      f"{name} has the splits train and test, but not {split!r}."
    )
  root = os.path.abspath(path)
  frames, splits = os.path.join(root, FRAMES), os.path.join(root, SPLITS)
  for file in (frames, splits):
    if not os.path.isfile(file):
      raise UsageError(
        f"{name!r} should end in the path of a folder that holds {FRAMES} and "
        f"{SPLITS} of NYU Depth v2, but {file} is not there."
      )
  total = _check_frames(frames)
  try:
    key = _NUMBERS[split]
    numbers = scipy.io.loadmat(splits, variable_names=[key])[key].ravel()
  except Exception as error:  # scipy raises anything on damaged bytes
    raise UsageError(
      f"{splits} should be a MATLAB file with {' and '.join(_NUMBERS.values())}"
      f", but it cannot be read so ({error}). Download it again."
    ) from error
  numbers = numbers.astype(np.int64) - 1
  if not len(numbers) or numbers.min() < 0 or numbers.max() >= total:
    raise UsageError(
      f"The frames of split {split!r} in {splits} should have numbers from 1 "
      f"to {total}, as many as {frames} holds, but others came. The two files "
      "do not belong together."
    )
  return NyuFrames(name, split, frames, numbers)


def _check_frames(path: str) -> int:
  """How many frames a file holds.

  Raises:
    UsageError: its arrays are not those of NYU Depth v2.
  """
  try:
    with h5py.File(path, "r") as file:
      images, depths = file["images"], file["depths"]
      shapes = [tuple(images.shape), tuple(depths.shape)]
      is_image = images.dtype == np.uint8
  except (OSError, KeyError) as error:
    raise UsageError(
      f"{path} should be a MATLAB 7.3 file with images and depths, but it "
      f"cannot be read so ({error}). Download it again."
    ) from error
  count = shapes[1][0] if shapes[1] else 0
  expected = [(count, 3, WIDTH, HEIGHT), (count, WIDTH, HEIGHT)]
  if shapes != expected or not is_image:
    raise UsageError(
      f"The arrays images and depths of {path} should be {expected[0]} bytes "
      f"and {expected[1]}, but they are {shapes[0]} and {shapes[1]}. Take the "
      "labelled data set as published."
    )
  return count
