"""Faster R-CNN on an encoder: its layers, and what they are trained on.

"C4" of an encoder is the map that its last group but one gives. There the
proposals are made; the last group then sees each of them by itself.
"""

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from byol_flax.models import grouping, resnet
from byol_flax.models.detection import (
  anchors,
  box_head,
  losses,
  roi_align,
  rpn,
  settings,
)

Batch = Mapping[str, jax.Array]


class Detector(nn.Module):
  """Finds boxes of K classes.

  Attributes:
    encoder: of two groups at least.
    num_classes: K.
    anchors: around each place of the C4 map.
    rpn_rules: how proposals are made.
    roi_rules: how they are classified.
    test_rules: what is kept of them.
    batch_groups: V, see `grouping`.
    frozen_norm: whether the encoder normalises by its running averages even in
      training. The head's BatchNorm has no averages before, so it never does.
  """

  encoder: resnet.ResNet
  num_classes: int
  anchors: settings.Anchors
  rpn_rules: settings.Rpn
  roi_rules: settings.Roi
  test_rules: settings.Test
  batch_groups: int
  frozen_norm: bool

  def setup(self) -> None:
    """Makes the two heads, of the encoder's types."""
    self.rpn = rpn.Rpn(
      anchors=self.anchors.per_place,
      dtype=self.encoder.dtype,
      param_dtype=self.encoder.param_dtype,
    )
    self.box = box_head.Head(
      num_classes=self.num_classes,
      norm=self.encoder.norm,
      param_dtype=self.encoder.param_dtype,
    )

  @property
  def stride(self) -> int:
    """Pixels from one place of the C4 map to the next."""
    return self.encoder.output_stride // 2  # The last group halves the map.

  def __call__(
    self, batch: Batch, key: jax.Array, *, train: bool
  ) -> dict[str, jax.Array]:
    """The four losses of a batch, whose sum is trained on.

    Args:
      batch: "image" uint8 [B, H, W, 3], "size" int32 [B, 2], "boxes" float32
        [B, M, 4] and "label" int32 [B, M], see `input_pipeline.dense`.
        Difficult boxes are trained on like others, as in detectron2.
      key: of what is drawn; it gives each image a key of its own.
      train: whether BatchNorm takes the statistics of this batch.
    """
    size, boxes, label = batch["size"], batch["boxes"], batch["label"]
    keys = jax.random.split(key, (len(size), 2))
    c4 = self._c4(batch["image"], train)
    logits, deltas = self.rpn(c4)
    around = self._anchors_of(c4)

    of_anchors = jax.vmap(
      functools.partial(rpn.draw_targets, rules=self.rpn_rules),
      in_axes=(0, None, 0, 0, 0),
    )(keys[:, 0], around, size, boxes, label >= 0)
    objectness, places = losses.of_proposals(
      jnp.take_along_axis(logits, of_anchors.place, axis=1),
      jnp.take_along_axis(deltas, of_anchors.place[..., None], axis=1),
      of_anchors.kind,
      of_anchors.deltas,
    )

    proposals, found = self._propose(
      logits,
      deltas,
      around,
      size,
      before=self.rpn_rules.train_before,
      after=self.rpn_rules.train_after,
    )
    of_boxes = jax.vmap(
      functools.partial(
        box_head.draw_targets,
        num_classes=self.num_classes,
        rules=self.roi_rules,
      )
    )(keys[:, 1], proposals, found, boxes, label)
    entropy, edges = losses.of_boxes(
      *self._of_each(c4, of_boxes.boxes, train), of_boxes.label, of_boxes.deltas
    )
    return {
      "objectness": objectness,
      "proposals": places,
      "classes": entropy,
      "boxes": edges,
    }

  def detect(self, images: jax.Array, size: jax.Array) -> box_head.Detections:
    """Boxes in images, uint8 [B, H, W, 3], which cover int32 [B, 2] pixels."""
    c4 = self._c4(images, train=False)
    of_anchors = self.rpn(c4)
    proposals, found = self._propose(
      *of_anchors,
      self._anchors_of(c4),
      size,
      before=self.rpn_rules.test_before,
      after=self.rpn_rules.test_after,
    )
    of_boxes = self._of_each(c4, proposals, train=False)
    boxes = jax.vmap(functools.partial(box_head.detect, rules=self.test_rules))(
      *of_boxes, proposals, found, size
    )
    # NaN exceeds no bound, so a network that has diverged would seem to find
    # nothing.
    finite = functools.reduce(
      jnp.logical_and,
      (
        jnp.isfinite(x).all(axis=range(1, x.ndim))
        for x in (*of_anchors, *of_boxes)
      ),
    )
    scores = jnp.where(finite[:, None], boxes.scores, jnp.nan)
    return boxes._replace(scores=scores)

  def _c4(self, images: jax.Array, train: bool) -> jax.Array:
    """The map [B, h, w, C] of images [B, H, W, 3]."""
    maps = self.encoder.feature_maps(
      grouping.grouped(images, self.batch_groups),
      train=train and not self.frozen_norm,
      groups=self.encoder.groups[:-1],
    )
    return grouping.ungrouped(maps[-1])

  def _anchors_of(self, c4: jax.Array) -> np.ndarray:
    return anchors.make_anchors(
      (c4.shape[1], c4.shape[2]),
      stride=self.stride,
      sizes=self.anchors.sizes,
      ratios=self.anchors.ratios,
    )

  def _propose(
    self,
    logits: jax.Array,
    deltas: jax.Array,
    around: np.ndarray,
    size: jax.Array,
    *,
    before: int,
    after: int,
  ) -> tuple[jax.Array, jax.Array]:
    """Proposals of each image, [B, P, 4] and [B, P]; nothing trains them."""
    propose = functools.partial(
      rpn.propose,
      before=before,
      after=after,
      threshold=self.rpn_rules.nms_iou,
    )
    return jax.vmap(propose, in_axes=(0, 0, None, 0))(
      *jax.lax.stop_gradient((logits, deltas)), around, size
    )

  def _of_each(
    self, c4: jax.Array, boxes: jax.Array, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """What the second stage says of boxes [B, R, 4].

    Returns:
      Logits [B, R, K + 1] and deltas [B, R, K, 4].
    """
    pooled = roi_align.roi_align(
      c4,
      boxes,
      stride=self.stride,
      size=self.roi_rules.pool_size,
      samples=self.roi_rules.sampling_ratio,
    )
    x = pooled.reshape(-1, *pooled.shape[2:])
    maps = self.encoder.feature_maps(
      grouping.grouped(x, self.batch_groups),
      train=train and not self.frozen_norm,
      groups=self.encoder.groups[-1:],
    )
    found = self.box(maps[-1], train=train)
    logits, deltas = map(grouping.ungrouped, found)
    return (
      logits.reshape(*boxes.shape[:2], *logits.shape[1:]),
      deltas.reshape(*boxes.shape[:2], *deltas.shape[1:]),
    )
