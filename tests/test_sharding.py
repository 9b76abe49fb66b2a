"""How the state lies on eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax import sharding
from byol_flax.pretrain import build
from byol_flax.runs import digest
from configs import byol_digits


def test_groups_hold_at_most_32_devices():
  # `make_mesh` only looks at two attributes of a device.
  for count, groups in ((1, 1), (6, 1), (32, 1), (48, 2), (512, 16)):
    devices = np.repeat(np.array(jax.devices()), 64)[:count]
    mesh = sharding.make_mesh(list(devices))
    assert mesh.shape == {"group": groups, "member": count // groups}


@pytest.mark.parametrize(
  ("shape", "part"),
  [
    ((3, 3, 64, 128), (3, 3, 8, 128)),  # the first axis that 8 × 8 divides
    ((1, 1, 32, 64), (1, 1, 32, 8)),
    ((3, 3, 32, 48), (3, 3, 32, 48)),
    ((4096,), (4096,)),
    ((), ()),
  ],
)
def test_weights_are_cut_into_whole_tiles(shape, part):
  mesh = sharding.make_mesh()
  assert sharding.cut(mesh, shape).shard_shape(shape) == part


def test_most_of_the_state_of_a_real_network_is_cut():
  config = byol_digits.get_config()
  built = build.build(
    config, sharding.make_mesh(), num_examples=1437, num_classes=10
  )
  leaves = jax.tree.leaves(built.abstract_state)
  whole = sum(x.size for x in leaves)
  part = sum(np.prod(x.sharding.shard_shape(x.shape)) for x in leaves)
  assert part < 0.4 * whole


def test_a_digest_does_not_depend_on_the_cut():
  mesh = sharding.make_mesh()
  tree = {
    "a": jax.random.normal(jax.random.key(0), (3, 64, 16)),
    "b": jnp.arange(5),
  }
  cut = jax.tree.map(
    lambda x: jax.device_put(x, sharding.cut(mesh, x.shape)), tree
  )
  assert not cut["a"].sharding.is_fully_replicated
  assert digest.tree_digest(cut) == digest.tree_digest(tree)
  moved = {**tree, "a": tree["a"][:, ::-1]}
  assert digest.tree_digest(moved) != digest.tree_digest(tree)
  whole = sharding.gather(mesh, cut)
  assert whole["a"].sharding.is_fully_replicated
  np.testing.assert_array_equal(whole["a"], tree["a"])
  assert sharding.gather(mesh, whole)["a"] is whole["a"]  # no second copy
