"""Sources for dense tasks whose images are files below one folder."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import decoding, folders, retries
from input_pipeline.decoding import ImageError
from input_pipeline.errors import UsageError
from input_pipeline.faults import Found, Kind


class Checked(NamedTuple):
  """An example that was looked at and kept.

  Attributes:
    image: its file, relative to the root of the set.
    size: height and width of the upright image.
    num_bytes: of the image file.
    label: what a subclass of `DenseFiles` makes of it: boxes, or a file.
    digest: changes when the label does.
    old_digest: what `digest` was in versions that knew only the size of the
      label's file; b"" if it was the same.
  """

  image: str
  size: tuple[int, int]
  num_bytes: int
  label: Any
  digest: bytes
  old_digest: bytes = b""

  def with_label(self, label: Any, data: bytes) -> "Checked":
    """The same, with a label that was made of the bytes of its file."""
    return self._replace(
      label=label,
      digest=hashlib.blake2b(data, digest_size=16).digest(),
      old_digest=b"%d" % len(data),
    )


def look_at_image(
  root: str, image: str, began_with: Mapping[str, int]
) -> Checked | Kind:
  """Looks at an image file; returns it without a label, or its fault.

  Args:
    root: of the set.
    image: the file, relative to the root.
    began_with: see `dense_sources.open_boxes`.

  Raises:
    OSError: the storage is at fault.
  """
  path = os.path.join(root, image)
  try:
    size = decoding.upright_size(path)
    num_bytes = began_with.get(image, os.path.getsize(path))
    return Checked(image, size, num_bytes, None, b"")
  except FileNotFoundError:
    return Kind.IMAGE_MISSING
  except ImageError:
    return Kind.IMAGE_DAMAGED
  except OSError as error:
    if retries.fault_of(error) is not retries.Fault.FILE:
      raise
    return Kind.IMAGE_DAMAGED


class DenseFiles:
  """Image files with labels of a dense task; see `parts.Source`.

  A subclass says by `label_of` what "label" is.

  Attributes:
    sizes: int32 [N, 2], height and width of each upright image.
    faults: kind of fault in words -> names of the examples that have it.
    most_boxes: the most of an image; 0 for masks and depth.
    old_fingerprint: what older versions recorded as `fingerprint`.
  """

  most_boxes = 0

  def __init__(
    self,
    name: str,
    split: str,
    root: str,
    examples: Sequence[Checked],
    class_names: Sequence[str],
    found: Found,
    notes: str = "",
  ) -> None:
    """Takes what was kept and what was found; `notes` go before the faults.

    Raises:
      UsageError: nothing was kept.
    """
    faults = str(found)
    if not examples:
      raise UsageError(
        f"Split {split!r} of {name} has no example that can be used"
        + (f": {faults}." if faults else ", because its list is empty.")
      )
    self.name = name
    self.split = split
    self.num_classes = len(class_names)
    self.class_names = tuple(class_names)
    self.ignored = "; ".join(text for text in (notes, faults) if text)
    self.faults: Mapping[str, Sequence[str]] = found.by_kind()
    self.sizes = np.array([example.size for example in examples], np.int32)
    self._root = root
    # Arrays reach a worker much sooner than lists.
    self._images = np.array([os.fsencode(x.image) for x in examples])
    self._bytes = np.array([x.num_bytes for x in examples], np.int64)
    self._digest = _digest_of(examples)
    self.old_fingerprint = _digest_of(
      [x._replace(digest=x.old_digest or x.digest) for x in examples]
    )

  def label_of(self, i: int) -> np.ndarray:
    """What the task predicts for example `i`."""
    raise NotImplementedError

  @property
  def fingerprint(self) -> str:
    """Digest of names and sizes of images, and of all labels."""
    return self._digest

  def __getstate__(self) -> dict[str, Any]:
    """Leaves out the faults, which no worker needs."""
    return {**self.__dict__, "faults": {}}

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, i: int) -> dict[str, Any]:
    label = self.label_of(i)
    image = folders.read_below(self._root, self.example_name(i))
    return {"image": image, "label": label}

  def ahead(self, numbers: Sequence[int] | np.ndarray) -> None:
    """Does nothing: each image is a file of its own."""

  def example_name(self, i: int) -> str:
    """The path of image `i`."""
    return os.path.join(self._root, self._relative(i))

  def file_name(self, i: int) -> str:
    """The last part of the path."""
    return os.path.basename(self._relative(i))

  def file_of(self, i: int) -> tuple[str, int]:
    """The image's path below the root, and its bytes at the opening."""
    return self._relative(i), int(self._bytes[i])

  def unlabelled(self) -> np.ndarray:
    """None, because an example without a label was left out."""
    return np.arange(0)

  def _relative(self, i: int) -> str:
    return os.fsdecode(bytes(self._images[i]))


def _digest_of(examples: Sequence[Checked]) -> str:
  """Of names, sizes of images, and digests of labels."""
  return hashlib.blake2b(
    b"".join(
      b"%b\0%d\0%b\n" % (os.fsencode(x.image), x.num_bytes, x.digest)
      for x in examples
    ),
    digest_size=16,
  ).hexdigest()


class BoxFiles(DenseFiles):
  """Images with boxes; "label" is float32 [M, 6].

  A row has four edges in pixels of the upright image (`voc_annotations`), the
  class and whether the object is difficult.
  """

  def __init__(
    self,
    name: str,
    split: str,
    root: str,
    examples: Sequence[Checked],
    class_names: Sequence[str],
    found: Found,
  ) -> None:
    """Takes examples whose labels are float32 [M, 6]."""
    super().__init__(name, split, root, examples, class_names, found)
    counts = [len(x.label) for x in examples]
    self.most_boxes = max(counts)
    self._ends = np.cumsum(counts)
    self._boxes = np.concatenate([x.label for x in examples])

  def label_of(self, i: int) -> np.ndarray:
    """The boxes of image `i`."""
    start = self._ends[i - 1] if i else 0
    return self._boxes[start : self._ends[i]].copy()
