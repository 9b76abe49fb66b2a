"""The measures of depth against NumPy's in float64."""

import jax
import numpy as np
import pytest

from byol_flax import sharding
from byol_flax.evaluation import depth_metrics
from tests.evaluation import settings

RNG = np.random.default_rng(12)


def batch(rows, height=14, width=23):
  true = RNG.uniform(0.4, 9.8, (rows, height, width)).astype(np.float32)
  predicted = true * RNG.uniform(0.4, 2.2, true.shape).astype(np.float32)
  predicted[RNG.random(true.shape) < 0.1] *= -1
  predicted[RNG.random(true.shape) < 0.1] = 0
  true[RNG.random(true.shape) < 0.3] = 0
  return {
    "predicted": predicted,
    "true": true,
    "counted": np.arange(rows) % 3 > 0,
  }


def by_numpy(batches):
  """Over all pixels at once."""
  parts = []
  for given in batches:
    valid = (given["true"] > 0) & given["counted"][:, None, None]
    parts.append(
      [given[x][valid].astype(np.float64) for x in ("true", "predicted")]
    )
  true, predicted = np.concatenate(parts, axis=1)
  with np.errstate(divide="ignore"):
    ratio = np.maximum(true / predicted, predicted / true)
  ratio[predicted <= 0] = np.inf
  return {
    "rel": np.mean(np.abs(true - predicted) / true),
    "rms": np.sqrt(np.mean((true - predicted) ** 2)),
    "pct_1.25": np.mean(ratio < 1.25),
    "pct_1.25^2": np.mean(ratio < 1.25**2),
    "pct_1.25^3": np.mean(ratio < 1.25**3),
  }


@pytest.mark.parametrize("devices", [1, 8])
def test_all_pixels_of_a_split_count_alike(devices):
  mesh = settings.mesh_of(devices)
  sums = jax.jit(depth_metrics.row_sums)
  batches = [batch(8), batch(8), batch(8)]
  total = {}
  for given in batches:
    found = jax.device_get(sums(**sharding.put_batch(mesh, given)))
    total = depth_metrics.add(total, found)
  assert depth_metrics.measures(total) == pytest.approx(
    by_numpy(batches), rel=1e-6
  )
  assert total["valid"].dtype == np.int64


def test_without_valid_pixels_there_is_no_number():
  given = batch(2) | {"counted": np.zeros(2, bool)}
  total = depth_metrics.add({}, jax.device_get(depth_metrics.row_sums(**given)))
  assert np.isnan(list(depth_metrics.measures(total).values())).all()


def test_conventions_differ_by_the_crop():
  """A plane that rises with the column is predicted for the middle, exactly."""
  columns = np.arange(640, dtype=np.float32)
  true = np.broadcast_to(1 + columns / 100, (1, 480, 640))
  # 608 columns from 16 on are seen, four of them by each of 152 predictions.
  seen = true[:, 12:468, 16:624]
  np.testing.assert_array_equal(depth_metrics.middle(true), seen)
  predicted = seen[:, ::4].reshape(1, 114, 152, 4).mean(-1)
  found = depth_metrics.pairs(predicted, true)
  inner = slice(2, -2)  # beyond the outermost predictions they are repeated
  np.testing.assert_allclose(
    *(x[:, :, inner] for x in found["cropped"]), rtol=1e-6
  )
  stretched, whole = found["fcrn"]
  assert stretched.shape == whole.shape == (1, 480, 640)
  # Half a column is twenty-nineteenths of another after the stretch.
  expected = 1 + (16 + (columns + 0.5) * 608 / 640 - 0.5) / 100
  np.testing.assert_allclose(stretched[0, 7, inner], expected[inner], rtol=1e-6)
