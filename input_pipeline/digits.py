"""A small data set that is always at hand."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline.errors import UsageError


class DigitsSource:
  """The 1,797 handwritten digits that scikit-learn carries; see `Source`.

  Images are uint8 [8, 8, 3], three equal channels, 0..255. The split is the
  same everywhere, for ever: the images, shuffled once with a fixed seed, are
  sorted by class, and every fifth is for test. So each class is divided four
  to one, give or take one image.
  """

  name = "digits"
  num_classes = 10
  ignored = ""
  class_names = tuple("0123456789")

  def __init__(self, split: str) -> None:
    """Takes `train` (1,437 images) or `test` (360)."""
    if split not in ("train", "test"):
      raise UsageError(f"digits has no split {split!r}; it has: train, test.")
    from sklearn.datasets import load_digits  # Takes a second to import.

    grey, labels = load_digits(return_X_y=True)  # [1797, 64] in 0..16, [1797]
    # NumPy keeps the numbers of RandomState as they are (NEP 19).
    shuffled = np.random.RandomState(0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    is_test = np.zeros(len(labels), bool)
    is_test[by_class[::5]] = True
    self.split = split
    self._numbers = np.flatnonzero(is_test == (split == "test"))
    self._images = np.round(grey[self._numbers] * (255 / 16)).astype(np.uint8)
    self._labels = labels[self._numbers].astype(np.int32)
    digest = hashlib.blake2b(self._images.tobytes(), digest_size=16)
    digest.update(self._labels.tobytes())
    self.fingerprint = digest.hexdigest()

  def __len__(self) -> int:
    return len(self._labels)

  def __getitem__(self, i: int) -> dict[str, Any]:
    grey = self._images[i].reshape(8, 8, 1)
    return {"image": np.repeat(grey, 3, axis=2), "label": self._labels[i]}

  def ahead(self, numbers: Sequence[int] | np.ndarray) -> None:
    """Does nothing: all images are in memory."""

  def example_name(self, i: int) -> str:
    """The number of the image in scikit-learn's list."""
    return f"digits image {self._numbers[i]}"

  def file_name(self, i: int) -> str:
    """The example's name."""
    return self.example_name(i)

  def file_of(self, i: int) -> None:
    """None, because the images come with scikit-learn."""

  def unlabelled(self) -> np.ndarray:
    """No example: all have labels."""
    return np.zeros(0, int)
