"""The five measures of depth, over all valid pixels of a split.

They are those of FCRN (paper.md §7.3): rel, the mean of |t - p| / t; rms, the
root of the mean of (t - p)²; and the shares of pixels where the larger of t / p
and p / t is below 1.25, 1.25² and 1.25³. A device adds up rows of pixels in
float32, the host adds the rows in float64, and what is counted is an integer.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import dense_depth, nyu

# All three are exact in float32.
RATIOS = {"pct_1.25": 1.25, "pct_1.25^2": 1.25**2, "pct_1.25^3": 1.25**3}
# Convention -> whether the frame is cut to what the network has seen.
CONVENTIONS = {"fcrn": False, "cropped": True}
# Shares of a frame's height and width that the network sees, in its middle.
_SEEN = (
  2 * dense_depth.SEEN[0] / nyu.HEIGHT,
  2 * dense_depth.SEEN[1] / nyu.WIDTH,
)

Sums = Mapping[str, np.ndarray]


def row_sums(
  predicted: jax.Array, true: jax.Array, counted: jax.Array
) -> dict[str, jax.Array]:
  """What the measures are made of, for each row of pixels.

  A prediction that is not positive is never within a ratio of the truth, and
  needs no bounds: no ratio is formed, as t < 1.25 p and p < 1.25 t say the
  same of positive ones.

  Args:
    predicted: float32 [B, H, W], in metres.
    true: float32 [B, H, W], in metres; 0 where it is not known, which cannot
      count in either convention.
    counted: bool [B]; images with False do not count.

  Returns:
    "valid" int32 [B, H], "relative" and "squared" float32 [B, H], and "within"
    int32 [B, H, 3], one for each of `RATIOS`.
  """
  valid = (true > 0) & counted[:, None, None]
  known = jnp.where(valid, true, 1)
  error = jnp.where(valid, known - predicted, 0)
  within = [
    jnp.sum(
      valid & (known < ratio * predicted) & (predicted < ratio * known),
      axis=-1,
      dtype=jnp.int32,
    )
    for ratio in RATIOS.values()
  ]
  return {
    "valid": jnp.sum(valid, axis=-1, dtype=jnp.int32),
    "relative": jnp.sum(jnp.abs(error) / known, axis=-1),
    "squared": jnp.sum(error**2, axis=-1),
    "within": jnp.stack(within, axis=-1),
  }


def pairs(
  predicted: jax.Array, true: jax.Array
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Prediction and truth as each convention compares them, by its name.

  "fcrn" is how the authors of FCRN evaluate: they stretch what was predicted of
  the middle of the frame over the whole frame, and use all pixels, because the
  labelled depths of NYU are filled. "cropped" compares it with the middle of
  the frame, which it was predicted for.

  Args:
    predicted: float32 [B, h, w], of what the network has seen.
    true: float32 [B, H, W], of the whole frame.
  """
  found = {}
  for name, cut in CONVENTIONS.items():
    known = middle(true) if cut else true
    found[name] = jax.image.resize(predicted, known.shape, "bilinear"), known
  return found


def middle(frame: jax.Array) -> jax.Array:
  """What the network has seen of frames [B, H, W]."""
  height, width = (
    round(share * size)
    for share, size in zip(_SEEN, frame.shape[1:], strict=True)
  )
  top, left = (frame.shape[1] - height) // 2, (frame.shape[2] - width) // 2
  return frame[:, top : top + height, left : left + width]


def add(total: Sums, sums: Sums) -> dict[str, np.ndarray]:
  """Adds the `row_sums` of a batch to a total, in float64 and int64.

  Args:
    total: what this function gave for the batches before; {} at first.
    sums: of the next batch.

  Returns:
    "valid" [], "relative" [], "squared" [] and "within" [3].
  """

  def widened(x: np.ndarray) -> np.ndarray:
    wide = np.float64 if x.dtype.kind == "f" else np.int64
    return np.asarray(np.sum(x, axis=(0, 1), dtype=wide))

  return {name: total.get(name, 0) + widened(x) for name, x in sums.items()}


def measures(total: Sums) -> dict[str, float]:
  """Says "rel", "rms" and `RATIOS` of a whole total; NaN without pixels."""
  valid = int(total["valid"]) or float("nan")
  return {
    "rel": float(total["relative"] / valid),
    "rms": float(np.sqrt(total["squared"] / valid)),
    **{
      name: float(hits / valid)
      for name, hits in zip(RATIOS, total["within"], strict=True)
    },
  }
