"""Random boxes for the tests of this folder."""

import numpy as np


def boxes(number, seed, empty=3):
  """float32 [number, 4] within about 0 and 100; the first have no area."""
  rng = np.random.default_rng(seed)
  corner = rng.uniform(0, 70, (number, 2))
  size = rng.exponential(25, (number, 2)) + 0.5
  size[:empty] = 0
  return np.concatenate([corner, corner + size], axis=1).astype(np.float32)
