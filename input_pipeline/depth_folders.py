"""Opens folders of frames with a depth file beside each of them.

PATH/SPLIT holds NAME.jpg or NAME.png, and NAME.depth.png: 16-bit grey, in
millimetres, where 0 and 65535 are not valid, as depth cameras write them.
"""

import os
from collections.abc import Mapping

import cv2
import numpy as np

from input_pipeline import dense_files, faults, folders, retries, voc_layout
from input_pipeline.dense_files import Checked, DenseFiles
from input_pipeline.errors import UnreadableError, UsageError
from input_pipeline.faults import Kind
from input_pipeline.nyu import HEIGHT, WIDTH

_DEPTH = ".depth.png"
_NOT_VALID = 65535  # millimetres
_METRES = np.float32(1e-3)


class DepthFiles(DenseFiles):
  """Frames with their depth; "label" is float32 [480, 640] in metres.

  Pixels that are not valid are 0.
  """

  def label_of(self, i: int) -> np.ndarray:
    """The depth of frame `i`.

    Raises:
      UnreadableError: the file was damaged after it was looked at.
    """
    path = depth_path(self.example_name(i))
    depth = decode(folders.read_below(self._root, path))
    if depth is None or depth.shape != (HEIGHT, WIDTH):
      raise UnreadableError(f"the depth {path} is damaged")
    return depth


def depth_path(image: str) -> str:
  """The path of the depth file beside an image."""
  return os.path.splitext(image)[0] + _DEPTH


def decode(data: bytes) -> np.ndarray | None:
  """Depth in metres, float32 [H, W], 0 where it is not valid.

  Returns None if the bytes are no 16-bit grey image.
  """
  if not data:
    return None
  try:
    depth = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
  except cv2.error:
    return None
  if depth is None or depth.dtype != np.uint16 or depth.ndim != 2:
    return None
  return np.where(depth == _NOT_VALID, 0, depth).astype(np.float32) * _METRES


def open_depth_folder(
  name: str, path: str, split: str, began_with: Mapping[str, int]
) -> DepthFiles:
  """The frames of a folder PATH/SPLIT in the order of their names.

  `began_with` is as in `dense_sources.open_boxes`.

  Raises:
    UsageError: there is no such folder, or no frame in it can be used.
  """
  root = os.path.abspath(os.path.join(path, split))
  if not path or not os.path.isdir(root):
    raise UsageError(
      f"{name!r} should end in the path of a folder that has a folder for each "
      f"split, but there is no folder {root}."
    )
  images = [
    file
    for file in voc_layout.files_by_name(root).values()
    if not file.endswith(_DEPTH)
  ]

  def check(image: str) -> tuple[Checked | None, list[Kind]]:
    looked = dense_files.look_at_image(root, image, began_with)
    if isinstance(looked, Kind):
      return None, [looked]
    if looked.size != (HEIGHT, WIDTH):
      return None, [Kind.FRAME_SIZE]
    beside = depth_path(os.path.join(root, image))
    try:
      data = folders.read_below(root, beside)
    except FileNotFoundError:
      return None, [Kind.DEPTH_MISSING]
    except OSError as error:
      if retries.fault_of(error) is not retries.Fault.FILE:
        raise
      return None, [Kind.DEPTH_DAMAGED]
    depth = decode(data)
    if depth is None or depth.shape != looked.size:
      return None, [Kind.DEPTH_DAMAGED]
    kinds = [] if depth.any() else [Kind.DEPTH_INVALID]
    return looked.with_label(None, data), kinds

  kept, found = faults.look_through(sorted(images), check, lambda name: name)
  return DepthFiles(name, split, root, kept, (), found)
