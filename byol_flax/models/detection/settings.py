"""What a detector leaves to its config; see configs/detection.py."""

from typing import NamedTuple


class Anchors(NamedTuple):
  """See `anchors.make_anchors`."""

  sizes: tuple[float, ...]
  ratios: tuple[float, ...]

  @property
  def per_place(self) -> int:
    """How many there are at each place of a map, A."""
    return len(self.sizes) * len(self.ratios)


class Rpn(NamedTuple):
  """How anchors become proposals, and how that is trained.

  Attributes:
    batch: anchors of an image that the loss is taken of.
    positive_share: of these, at most.
    positive_iou: see `matching.match`.
    negative_iou: likewise.
    nms_iou: see `nms.suppress`.
    train_before: proposals of an image before suppression, in training.
    train_after: the same after it.
    test_before: as in training.
    test_after: as in training.
  """

  batch: int
  positive_share: float
  positive_iou: float
  negative_iou: float
  nms_iou: float
  train_before: int
  train_after: int
  test_before: int
  test_after: int


class Roi(NamedTuple):
  """How proposals get classes, and how that is trained.

  Attributes:
    batch: proposals of an image that the loss is taken of.
    positive_share: of these, at most.
    iou: overlap from which a proposal stands for a true box.
    pool_size: P, see `roi_align.roi_align`.
    sampling_ratio: its `samples`.
  """

  batch: int
  positive_share: float
  iou: float
  pool_size: int
  sampling_ratio: int


class Test(NamedTuple):
  """What is kept of an image.

  Attributes:
    score: probability above which a box is kept.
    nms_iou: see `nms.suppress`, which is applied to each class.
    detections: boxes of an image, at most, D.
  """

  score: float
  nms_iou: float
  detections: int
