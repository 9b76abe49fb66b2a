"""The second stage: a class for each proposal, and where exactly its box is.

The encoder's last group sees what RoIAlign cuts out of the map before it. As in
MoCo (arXiv 1911.05722 §4.2.1), a BatchNorm follows that group.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from byol_flax.models import layers
from byol_flax.models.detection import boxes as boxes_lib
from byol_flax.models.detection import matching, nms, sampling, settings

# Detectron2's MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS.
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class Head(nn.Module):
  """What follows the encoder: BatchNorm, mean over space, two linear layers.

  The kernels start as in detectron2's `FastRCNNOutputLayers`.

  Attributes:
    num_classes: K.
    norm: makes a BatchNorm.
    param_dtype: of weights and results.
  """

  num_classes: int
  norm: Any
  param_dtype: Any

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """Maps [n, V, h, w, C] to logits and deltas.

    Returns:
      [n, V, K + 1], of which the last is the background, and [n, V, K, 4].
    """
    x = self.norm(name="norm")(x, train=train)
    y = jnp.mean(x.astype(self.param_dtype), axis=(2, 3))
    logits, deltas = (
      layers.Linear(
        features,
        use_bias=True,
        kernel_init=nn.initializers.normal(deviation),
        dtype=self.param_dtype,
        param_dtype=self.param_dtype,
        name=name,
      )(y)
      for name, features, deviation in (
        ("classes", self.num_classes + 1, 0.01),
        ("deltas", 4 * self.num_classes, 0.001),
      )
    )
    return logits, deltas.reshape(*y.shape[:2], self.num_classes, 4)


class Targets(NamedTuple):
  """What the second stage is trained on in one image: R proposals.

  Attributes:
    boxes: float32 [R, 4].
    label: int32 [R]; K is the background, and -1 does not count.
    deltas: float32 [R, 4], of those with a class.
  """

  boxes: jax.Array
  label: jax.Array
  deltas: jax.Array


def draw_targets(
  key: jax.Array,
  proposals: jax.Array,
  found: jax.Array,
  boxes: jax.Array,
  label: jax.Array,
  num_classes: int,
  rules: settings.Roi,
) -> Targets:
  """Matches the proposals of one image, and draws some of them.

  The true boxes are proposals too, as in detectron2, so that there are always
  some to learn from.

  Args:
    key: of the draw.
    proposals: float [P, 4].
    found: which of them there are, bool [P].
    boxes: the true ones, float [M, 4].
    label: their classes, int [M]; -1 pads.
    num_classes: K.
    rules: `batch`, `positive_share` and `iou` count.
  """
  true = label >= 0
  candidates = jnp.concatenate([proposals, boxes])
  matches = matching.match(
    boxes_lib.pairwise_overlaps(boxes, candidates),
    true=true,
    counts=jnp.concatenate([found, true]),
    positive=rules.iou,
    negative=rules.iou,
    best_too=False,
  )
  place, kind = sampling.sample(
    key,
    matches.kind,
    number=rules.batch,
    positive_share=rules.positive_share,
  )
  truth, drawn = matches.truth[place], candidates[place]
  own = jnp.where(kind == matching.POSITIVE, label[truth], num_classes)
  return Targets(
    boxes=drawn,
    label=jnp.where(kind == matching.NEITHER, -1, own),
    deltas=boxes_lib.encode(drawn, boxes[truth], WEIGHTS),
  )


class Detections(NamedTuple):
  """Boxes that are found in one image, or in each of B; the best first.

  Attributes:
    boxes: float32 [D, 4], in pixels of the canvas.
    scores: float32 [D], probabilities; NaN where what the network says of the
      image is not finite.
    label: int32 [D], classes; -1 pads.
  """

  boxes: jax.Array
  scores: jax.Array
  label: jax.Array


def detect(
  logits: jax.Array,
  deltas: jax.Array,
  proposals: jax.Array,
  found: jax.Array,
  size: jax.Array,
  rules: settings.Test,
) -> Detections:
  """Turns what the head says of one image into boxes.

  Args:
    logits: float [P, K + 1].
    deltas: float [P, K, 4].
    proposals: float [P, 4].
    found: which of them there are, bool [P].
    size: height and width of the image, int [2].
    rules: what is kept.
  """
  proposed, classes, _ = deltas.shape
  scores = jax.nn.softmax(logits)[:, :-1].reshape(-1)
  boxes = boxes_lib.decode(proposals[:, None], deltas, WEIGHTS).reshape(-1, 4)
  boxes = boxes_lib.clip(boxes, size)
  counts = (
    jnp.repeat(found, classes)
    & (scores > rules.score)
    & boxes_lib.has_area(boxes)
  )
  label = jnp.tile(jnp.arange(classes), proposed)
  kept, some = nms.suppress(
    boxes,
    jnp.where(counts, scores, -jnp.inf),
    threshold=rules.nms_iou,
    number=rules.detections,
    label=label,
  )
  return Detections(
    boxes=jnp.where(some[:, None], boxes[kept], 0),
    scores=jnp.where(some, scores[kept], 0),
    label=jnp.where(some, label[kept], -1).astype(jnp.int32),
  )
