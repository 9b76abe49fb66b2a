"""Opens the masks of folders that are laid out as VOC's development kit.

For the split `train_aug`, masks of the Semantic Boundaries Dataset (SBD,
Hariharan et al. 2011) join those of VOC's train. People have them as PNG files
in `SegmentationClassAug`, with a list, or as SBD's own `benchmark_RELEASE`.
"""

import os
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from input_pipeline import (
  dense_files,
  faults,
  folders,
  mask_files,
  retries,
  voc_classes,
  voc_layout,
)
from input_pipeline.dense_files import Checked, DenseFiles
from input_pipeline.errors import UnreadableError, UsageError
from input_pipeline.faults import Found, Kind
from input_pipeline.voc_classes import VOID

TRAIN_AUG = "train_aug"
_AUGMENTED = "SegmentationClassAug"
_AUGMENTED_LISTS = tuple(
  os.path.join(folder, f"{name}.txt")
  for folder in (
    *("ImageSets/Segmentation", "ImageSets/SegmentationAug", "ImageSets"),
    *("", _AUGMENTED),
  )
  for name in ("train_aug", "trainaug")
)
_SBD = "benchmark_RELEASE/dataset/cls"
_CLASSES = "classes.txt"
_KIND = "Segmentation"  # of lists


class Listed(NamedTuple):
  """Which images a split has, where their masks are, and what to say of it."""

  names: Sequence[str]
  masks: Mapping[str, str]
  note: str


class MaskFiles(DenseFiles):
  """Images with a class for each pixel; "label" is uint8 [H, W].

  A class that nobody declared is void, 255.
  """

  def __init__(
    self,
    name: str,
    split: str,
    root: str,
    examples: Sequence[Checked],
    class_names: Sequence[str],
    found: Found,
    note: str,
  ) -> None:
    """Takes examples whose labels are the paths of masks."""
    super().__init__(name, split, root, examples, class_names, found, note)
    self._masks = np.array([os.fsencode(x.label) for x in examples])

  def label_of(self, i: int) -> np.ndarray:
    """The classes of image `i`.

    Raises:
      UnreadableError: the mask was damaged after it was looked at.
    """
    path = os.fsdecode(bytes(self._masks[i]))
    try:
      classes = decoded(folders.read_below(self._root, path), path)
    except (mask_files.DamagedError, mask_files.ModeError) as error:
      raise UnreadableError(f"the mask {path}: {error}") from error
    if classes.shape != tuple(self.sizes[i]):
      raise UnreadableError(f"the mask {path} has another size than before")
    return np.where(classes < self.num_classes, classes, np.uint8(VOID))


def decoded(data: bytes, path: str) -> np.ndarray:
  """The classes in a mask, uint8 [H, W]; errors are those of `mask_files`."""
  if path.endswith(".mat"):
    return mask_files.decode_matlab(data)
  return mask_files.decode(data)


def open_masks(
  name: str,
  path: str,
  split: str,
  classes_file: str,
  began_with: Mapping[str, int],
) -> MaskFiles:
  """The images of a list in `ImageSets/Segmentation` with their masks.

  Args:
    name: what the source shall be called.
    path: the folder that holds `JPEGImages` and `SegmentationClass`.
    split: names the list; `train_aug` is train with SBD's masks.
    classes_file: with one name a line, from number 0 on; "": `classes.txt` in
      the folder if there is one, otherwise background and VOC's classes.
    began_with: see `dense_sources.open_boxes`.

  Raises:
    UsageError: a folder or the list is absent, or nothing can be used.
  """
  root = voc_layout.root_of(name, path)
  own = os.path.join(root, _CLASSES)
  if not classes_file and os.path.isfile(own):
    classes_file = own
  class_names = (
    voc_classes.read(classes_file) if classes_file else voc_classes.OF_MASKS
  )
  images = voc_layout.files_by_name(os.path.join(root, voc_layout.IMAGES))
  what = (
    augmented(name, root, images)
    if split == TRAIN_AUG
    else _plain(root, split, images)
  )

  def check(name: str) -> tuple[Checked | None, list[Kind]]:
    if name not in images:
      return None, [Kind.IMAGE_MISSING]
    if name not in what.masks:
      return None, [Kind.MASK_MISSING]
    image = os.path.join(voc_layout.IMAGES, images[name])
    looked = dense_files.look_at_image(root, image, began_with)
    if isinstance(looked, Kind):
      return None, [looked]
    mask = what.masks[name]
    data, kinds = look_at_mask(root, mask, looked.size, len(class_names))
    if any(kind not in _KEPT for kind in kinds):
      return None, kinds
    return looked.with_label(mask, data), kinds

  kept, found = faults.look_through(what.names, check, lambda name: name)
  return MaskFiles(name, split, root, kept, class_names, found, what.note)


_KEPT = (Kind.MASK_UNDECLARED, Kind.MASK_VOID)


def look_at_mask(
  root: str, path: str, size: tuple[int, int], num_classes: int
) -> tuple[bytes, list[Kind]]:
  """Bytes and faults of a mask whose upright image has a height and a width."""
  try:
    data = folders.read_below(root, path)
    classes = decoded(data, path)
  except FileNotFoundError:
    return b"", [Kind.MASK_MISSING]
  except mask_files.ModeError:
    return b"", [Kind.MASK_MODE]
  except mask_files.DamagedError:
    return b"", [Kind.MASK_DAMAGED]
  except OSError as error:
    if retries.fault_of(error) is not retries.Fault.FILE:
      raise
    return b"", [Kind.MASK_DAMAGED]
  if classes.shape != size:
    return data, [Kind.MASK_SIZE]
  counts = np.bincount(classes.ravel(), minlength=VOID + 1)
  kinds = []
  if counts[num_classes:VOID].any():
    kinds.append(Kind.MASK_UNDECLARED)
  if counts[VOID]:
    kinds.append(Kind.MASK_VOID)
  return data, kinds


def augmented(name: str, root: str, images: Container[str] = ()) -> Listed:
  """VOC's train with SBD's masks, without the images of VOC's val.

  Args:
    name: of the source.
    root: the folder that holds `SegmentationClass`.
    images: see `voc_layout.read_list`.

  Raises:
    UsageError: SBD's masks are in none of the places where people have them.
  """
  val = {*voc_layout.listed(root, _KIND, "val", images)}
  train = voc_layout.listed(root, _KIND, "train", images)
  masks = _in_folder(root, voc_layout.MASKS)
  folder = os.path.join(root, _AUGMENTED)
  if os.path.isdir(folder):
    extra = _in_folder(root, _AUGMENTED)
    lists = [os.path.join(root, file) for file in _AUGMENTED_LISTS]
    file = next((file for file in lists if os.path.isfile(file)), None)
    names = (
      voc_layout.read_list(file, images) if file else [*train, *sorted(extra)]
    )
    return Listed(
      [x for x in dict.fromkeys(names) if x not in val],
      masks | extra,
      f"SBD's masks are those of {folder}"
      + (f", listed in {file}" if file else "; no list chooses among them"),
    )
  above = os.path.dirname(root)
  places = [
    os.path.join(place, _SBD) for place in (root, above, os.path.dirname(above))
  ]
  folder = next((place for place in places if os.path.isdir(place)), "")
  if not folder:
    raise UsageError(
      f"Split train_aug of {name} needs the masks of SBD, which are not there. "
      f"Put them either as PNG files into {os.path.join(root, _AUGMENTED)}, "
      f"with a list {os.path.join(root, _AUGMENTED_LISTS[0])}, or unpack SBD's "
      f"archive so that {places[0]} or {places[1]} holds its .mat files; or "
      "name split train."
    )
  found = voc_layout.files_by_name(folder, [".mat"])
  extra = {x: os.path.join(folder, file) for x, file in found.items()}
  names = [*train, *sorted(extra)]
  return Listed(
    [x for x in dict.fromkeys(names) if x not in val],
    extra | {x: masks[x] for x in train if x in masks},
    f"SBD's masks are those of {folder}, and VOC's own where there are such",
  )


def _plain(root: str, split: str, images: Container[str]) -> Listed:
  names = voc_layout.listed(root, _KIND, split, images)
  return Listed(names, _in_folder(root, voc_layout.MASKS), "")


def _in_folder(root: str, folder: str) -> dict[str, str]:
  """Name -> path of each PNG file of a folder."""
  folder = os.path.join(root, folder)
  files = voc_layout.files_by_name(folder, [".png"])
  return {name: os.path.join(folder, file) for name, file in files.items()}
