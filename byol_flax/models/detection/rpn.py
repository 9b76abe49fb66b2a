"""Region proposals: which anchors hold an object, and where exactly.

The layers are those of detectron2's `StandardRPNHead`.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from byol_flax.models import layers
from byol_flax.models.detection import anchors as anchors_lib
from byol_flax.models.detection import boxes as boxes_lib
from byol_flax.models.detection import (
  matching,
  nms,
  ranking,
  sampling,
  settings,
)

# Detectron2's MODEL.RPN.BBOX_REG_WEIGHTS.
WEIGHTS = (1.0, 1.0, 1.0, 1.0)
_DEVIATION = 0.01  # of all kernels


class Rpn(nn.Module):
  """A score and four deltas for each anchor of a map.

  Attributes:
    anchors: how many there are at each place, A.
    dtype: of activations.
    param_dtype: of weights and results.
  """

  anchors: int
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps [B, h, w, C] to logits [B, h·w·A] and deltas [B, h·w·A, 4]."""
    init = nn.initializers.normal(_DEVIATION)
    types = {"param_dtype": self.param_dtype, "kernel_init": init}
    x = layers.Conv(
      x.shape[-1],
      (3, 3),
      strides=1,
      padding="same",
      use_bias=True,
      dtype=self.dtype,
      name="conv",
      **types,
    )(x)
    x = nn.relu(x).astype(self.param_dtype)
    logits, deltas = (
      layers.Linear(
        self.anchors * size,
        use_bias=True,
        dtype=self.param_dtype,
        name=name,
        **types,
      )(x)
      for name, size in (("objectness", 1), ("deltas", 4))
    )
    rows = len(x)
    return logits.reshape(rows, -1), deltas.reshape(rows, -1, 4)


def propose(
  logits: jax.Array,
  deltas: jax.Array,
  anchors: np.ndarray,
  size: jax.Array,
  *,
  before: int,
  after: int,
  threshold: float,
) -> tuple[jax.Array, jax.Array]:
  """The boxes of one image that are most likely to hold an object.

  Args:
    logits: float [N].
    deltas: float [N, 4].
    anchors: float [N, 4].
    size: height and width of the image, int [2].
    before: how many enter the suppression.
    after: how many leave it at most, P.
    threshold: see `nms.suppress`.

  Returns:
    Boxes within the image, the best first, float32 [P, 4], and which of them
    there are, bool [P].
  """
  inside = anchors_lib.inside(anchors, size)
  scores = jnp.where(inside, logits, -jnp.inf)
  scores, best = ranking.largest(scores, min(before, len(anchors)))
  boxes = boxes_lib.decode(jnp.asarray(anchors)[best], deltas[best], WEIGHTS)
  boxes = boxes_lib.clip(boxes, size)
  scores = jnp.where(boxes_lib.has_area(boxes), scores, -jnp.inf)
  kept, found = nms.suppress(boxes, scores, threshold=threshold, number=after)
  return boxes[kept], found


class Targets(NamedTuple):
  """What the proposals of one image are trained on: S anchors.

  Attributes:
    place: int32 [S], numbers of the anchors.
    kind: int32 [S], see `sampling.Sample`.
    deltas: float32 [S, 4], of those that are positive.
  """

  place: jax.Array
  kind: jax.Array
  deltas: jax.Array


def draw_targets(
  key: jax.Array,
  anchors: np.ndarray,
  size: jax.Array,
  boxes: jax.Array,
  true: jax.Array,
  rules: settings.Rpn,
) -> Targets:
  """Matches the anchors of one image, and draws some of them.

  Args:
    key: of the draw.
    anchors: float [N, 4].
    size: height and width of the image, int [2].
    boxes: the true ones, float [M, 4].
    true: which of them are no padding, bool [M].
    rules: `batch`, `positive_share` and the thresholds count.
  """
  matches = matching.match(
    boxes_lib.pairwise_overlaps(boxes, jnp.asarray(anchors)),
    true=true,
    counts=anchors_lib.inside(anchors, size),
    positive=rules.positive_iou,
    negative=rules.negative_iou,
    best_too=True,
  )
  place, kind = sampling.sample(
    key,
    matches.kind,
    number=rules.batch,
    positive_share=rules.positive_share,
  )
  own = boxes[matches.truth[place]]
  deltas = boxes_lib.encode(jnp.asarray(anchors)[place], own, WEIGHTS)
  return Targets(place=place, kind=kind, deltas=deltas)
