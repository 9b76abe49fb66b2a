"""BatchNorm over groups of images, whose averages move once an update."""

import jax
import jax.numpy as jnp
import numpy as np

from byol_flax.models import grouping
from tests.models import dense_networks


def test_averages_move_once_an_update_towards_the_mean_of_the_groups():
  encoder = grouping.of_groups(dense_networks.smallest())
  decay, norm = encoder.norm.keywords["decay"], encoder.norm()
  rng = np.random.default_rng(6)
  variables = norm.init(jax.random.key(0), jnp.zeros((2, 4, 3)), train=True)
  average = {"mean": np.zeros(3), "variance": np.ones(3)}
  for count in (1, 2, 3):
    x = rng.normal(rng.normal(size=(8, 1)), 1.5, (8, 3)).astype(np.float32)
    found, changed = norm.apply(
      variables, grouping.grouped(x, 4), train=True, mutable=["batch_stats"]
    )
    variables = {**variables, **changed}
    each = x.reshape(4, 2, 3)
    expected = (each - each.mean(1, keepdims=True)) / np.sqrt(
      each.var(1, keepdims=True) + 1e-5
    )
    np.testing.assert_allclose(
      grouping.ungrouped(found), expected.reshape(8, 3), atol=1e-4
    )
    weight = (1 - decay) / (1 - decay**count)
    seen = {"mean": each.mean(1).mean(0), "variance": each.var(1).mean(0)}
    for name, value in seen.items():
      average[name] += weight * (value - average[name])
      np.testing.assert_allclose(
        variables["batch_stats"][name], average[name], rtol=1e-5, atol=1e-6
      )
    assert variables["batch_stats"]["count"] == count
