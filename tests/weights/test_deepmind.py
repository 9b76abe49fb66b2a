"""Checkpoints of the authors become our networks, and compute the same."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax import sharding
from byol_flax.models import byol
from byol_flax.pretrain import (
  initial_state,
  optimizers,
  origin,
  schedules,
  train_state,
  train_step,
)
from byol_flax.weights import arrays, deepmind
from byol_flax.weights.errors import WeightsError
from tests import tiny
from tests.pretrain import test_golden_step as golden_step
from tests.weights import deepmind_files

RELEASED = pathlib.Path(__file__).parents[3] / "shared" / "goldens"
MODULES = ("encoder", "projector", "predictor", "classifier")


def golden_of(name):
  return np.load(golden_step.GOLDENS / f"step_{name}.npz")


def haiku_tree(golden, group):
  """{module: {leaf: array}} of one group of a golden file."""
  tree: dict = {}
  for key in golden.files:
    if key.startswith(f"{group}|"):
      _, module, leaf = key.split("|")
      tree.setdefault(module, {})[leaf] = golden[key]
  return tree


def content_after(golden, updates):
  """The arguments of `deepmind_files.write` for a golden state."""
  networks = {
    name: {
      "params": haiku_tree(golden, f"{name}_{updates}"),
      "state": haiku_tree(golden, f"{name}_bn_{updates}"),
    }
    for name in ("online", "target")
  }
  return {
    "networks": networks,
    "momentum": haiku_tree(golden, "momentum_1"),
    "step": updates,
  }


def expected_after(golden, updates, dtype=np.float64):
  """Both networks by hand, as `arrays.read` gives them."""
  return {
    name: {
      "params": golden_step.golden_tree(golden, f"{name}_{updates}", dtype),
      "batch_stats": golden_step.with_counts(
        golden_step.golden_tree(golden, f"{name}_bn_{updates}", dtype),
        2 * updates,
      ),
    }
    for name in ("online", "target")
  }


def assert_same(found, expected):
  found, expected = golden_step.flat(found), golden_step.flat(expected)
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture
def written(tmp_path):
  """Writes a checkpoint of a golden state; keywords change its content."""

  def write(
    style=deepmind_files.STYLES["2021"], golden="TinyResNet", **changed
  ):
    path = tmp_path / "pretrain.pkl"
    content = content_after(golden_of(golden), 5) | changed
    deepmind_files.write(path, style=style, **content)
    return str(path)

  return write


@pytest.mark.slow
@pytest.mark.parametrize("style", deepmind_files.STYLES)
def test_every_style_gives_the_same_arrays(written, style):
  found = deepmind.read(written(deepmind_files.STYLES[style]))
  golden = golden_of("TinyResNet")
  expected = expected_after(golden, 5)
  stored = {name: arrays.read(tree) for name, tree in found.networks.items()}
  as_float64 = jax.tree.map(
    lambda x: x if x.dtype == np.int32 else x.astype(np.float64), stored
  )
  assert_same(as_float64, expected)
  momentum = golden_step.golden_tree(golden, "momentum_1")
  assert_same(arrays.read(found.momentum), momentum)
  assert (found.format, found.step) == ("deepmind", 5)
  assert found.details["state"] == "byol.byol_experiment._ByolExperimentState"
  assert found.account.matched == 3 * 51 - 2 + 2 * 3 * 15 + 2
  assert "rng" in found.account.ignored


@pytest.mark.parametrize("mapping", ["dict", "flatmapping"])
@pytest.mark.parametrize("name", golden_step.NETWORKS)
def test_released_files_are_read(name, mapping):
  path = RELEASED / f"released_format_{name}_{mapping}.pkl"
  if not path.exists():
    pytest.skip("../shared/goldens is not beside the repository")
  found = deepmind.read(str(path))
  stored = {side: arrays.read(tree) for side, tree in found.networks.items()}
  assert_same(stored, expected_after(golden_of(name), 5, np.float32))
  assert found.step == 5
  assert found.momentum is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_step.NETWORKS)
def test_imported_networks_compute_what_the_authors_do(written, name):
  found = deepmind.read(written(golden=name))
  golden = golden_of(name)
  with jax.enable_x64(True):
    types = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    settings = {**found.model, "initializer": "fan_in"}
    network = byol.make_network(**settings, num_classes=10, **types)
    view1 = golden["batch_4|view1"][:, None]
    variables = arrays.read(found.networks["online"])
    outputs = jax.jit(lambda x: network.apply(variables, x, train=False))(view1)
    for output in ("projection", "prediction", "logits"):
      np.testing.assert_allclose(
        getattr(outputs, output)[:, 0],
        golden[f"inference_after|{output}"],
        rtol=1e-8,
        atol=1e-10,
      )


@pytest.mark.slow
def test_an_update_after_importing_is_that_of_the_authors(written):
  golden = golden_of("TinyResNet")
  found = deepmind.read(written(**content_after(golden, 1)))
  assert found.step == 1
  rates = np.array([golden[f"log_{k}|learning_rate"] for k in range(5)])
  with jax.enable_x64(True):
    types = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    settings = {**found.model, "initializer": "fan_in"}
    network = byol.make_network(**settings, num_classes=10, **types)
    tx = optimizers.lars(
      lambda step: jnp.asarray(rates, jnp.float64)[step],
      weight_decay=1.5e-6,
      momentum=0.9,
      trust_coefficient=1e-3,
    )
    create = functools.partial(
      train_state.create_byol_state,
      network,
      tx,
      seed=0,
      image_size=golden["batch_1|view1"].shape[1],
      target_init="independent",
    )
    # All of it is replaced.
    new = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(create)
    )
    step_fn = jax.jit(
      train_step.make_train_step(
        network,
        settings=tiny.BYOL,
        learning_rate=lambda step: jnp.asarray(rates, jnp.float64)[step],
        target_decay=schedules.target_decay_schedule(
          base_target_decay=0.9, total_steps=50
        ),
        accumulation_steps=1,
        gradient_dtype="params",
        mesh=sharding.make_mesh(jax.devices()[:1]),
        make_views=tiny.stack_views,
      )
    )

    def updated(networks, momentum):
      everything = origin.Origin("", None, origin.EVERYTHING)
      taken = origin.Taken(networks, momentum)
      state = initial_state.enter(everything, taken, MODULES, 1, new)
      names = {"view1": "view1", "view2": "view2", "label": "labels"}
      batch = {ours: golden[f"batch_1|{n}"] for ours, n in names.items()}
      return step_fn(state, batch)[0]

    imported = updated(
      {name: arrays.read(tree) for name, tree in found.networks.items()},
      arrays.read(found.momentum),
    )
    by_hand = updated(
      expected_after(golden, 1), golden_step.golden_tree(golden, "momentum_1")
    )
    for side in ("online", "target"):
      ours = getattr(imported, side)
      assert_same(ours.variables, getattr(by_hand, side).variables)
      theirs = golden_step.golden_tree(golden, f"{side}_2")
      golden_step.assert_close(ours.params, theirs, float(rates[:2].sum()))


def changed(tree, module, leaf=None, to=None):
  """A tree with one module or array changed, or gone."""
  tree = {name: dict(leaves) for name, leaves in tree.items()}
  if leaf is None:
    del tree[module]
  elif to is None:
    del tree[module][leaf]
  else:
    tree.setdefault(module, {})[leaf] = to
  return tree


CONV = "tiny_res_net/~/block_group_2/~/block_0/~/conv_1"
CONV_0 = CONV.replace("conv_1", "conv_0")
NORM = "tiny_res_net/~/initial_batchnorm"
SMALL = np.zeros(3, np.float32)
BAD = {  # how online_params are changed, and what is said
  "missing": (
    (CONV_0,),
    r"group2_block0/conv0/kernel \[3, 3, 8, 8\] is missing",
  ),
  "shape": (
    (CONV, "w", np.zeros((3, 3, 8, 9), np.float32)),
    r"batchnorm_0/~/mean_ema average is \[8\], expected \[9\]",
  ),
  "no offset": ((NORM, "offset"), r"stem_norm/offset \[64\] is missing"),
  "left over": ((CONV, "b", SMALL), r"/conv_1 b \[3\] is left over"),
  "unknown": (("other/layer", "w", SMALL), "authors' network: other/layer w"),
  "logits": (("tiny_res_net/~/logits", "w", SMALL), "network: tiny_res_net"),
  "collision": (("x/~/initial_conv", "w", SMALL), "two arrays that would be"),
  "integers": ((CONV, "w", np.zeros((3, 3, 8, 8), int)), "type int64"),
  "objects": ((CONV, "w", np.zeros(3, object)), "array of type O;"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_other_networks_are_refused_by_name(written, name):
  how, said = BAD[name]
  networks = content_after(golden_of("TinyResNet"), 5)["networks"]
  networks["online"]["params"] = changed(networks["online"]["params"], *how)
  with pytest.raises(WeightsError, match=said):
    deepmind.read(written(networks=networks))


def test_weights_that_are_no_numbers_are_refused_when_read(written):
  networks = content_after(golden_of("TinyResNet"), 5)["networks"]
  nan = np.full((3, 3, 8, 8), np.nan, np.float32)
  networks["target"]["params"] = changed(
    networks["target"]["params"], CONV, "w", nan
  )
  found = deepmind.read(written(networks=networks))
  with pytest.raises(WeightsError, match="conv1/kernel holds values that"):
    arrays.read(found.networks["target"])


def test_an_online_network_without_a_predictor_is_taken_alone(written):
  network = content_after(golden_of("TinyResNet"), 5)["networks"]["online"]
  kept = {
    part: {
      name: leaves
      for name, leaves in tree.items()
      if not name.startswith(("predictor", "classifier"))
    }
    for part, tree in network.items()
  }
  found = deepmind.read(written(networks={"online": kept}, momentum={}))
  assert list(found.networks) == ["online"]
  assert found.model["predictor"]["layers"] == 0
  assert found.momentum is None


@pytest.mark.parametrize(
  ("step", "updates"), [(5, 5), (4, 5), (3, None), (6, None)]
)
def test_the_step_is_that_of_the_last_update(written, step, updates):
  # The authors' loop saves before it counts, but for the last time.
  assert deepmind.read(written(step=step)).step == updates


@pytest.mark.slow
def test_truncated_files_are_refused_wherever_they_end(written):
  path = pathlib.Path(written())
  whole = path.read_bytes()
  for end in range(0, len(whole) - 1, len(whole) // 50):
    path.write_bytes(whole[:end])
    with pytest.raises(WeightsError, match=r"ends early|has no end within"):
      deepmind.read(str(path))


def test_arrays_that_share_their_bytes_are_refused(written):
  # A file of any size could be told in a few of them.
  kernel = np.zeros((3, 3, 64, 64), np.float32)
  channels = np.zeros((1, 1, 1, 64), np.float32)
  params = {
    "r/~/initial_conv": {"w": np.zeros((7, 7, 3, 64), np.float32)},
    "r/~/initial_batchnorm": {"scale": channels, "offset": channels},
  }
  for block in range(20):
    for i in range(2):
      layers = f"r/~/block_group_0/~/block_{block}/~/"
      params[f"{layers}conv_{i}"] = {"w": kernel}
      params[f"{layers}batchnorm_{i}"] = {"scale": channels, "offset": channels}
  count = np.zeros((), np.int32)
  state = {}
  for module in params:
    if "batchnorm" in module:
      mean = {"average": channels, "counter": count}
      state[f"{module}/~/mean_ema"] = mean
      state[f"{module}/~/var_ema"] = {"average": channels}
  networks = {"online": {"params": params, "state": state}}
  with pytest.raises(WeightsError, match="more than the file's"):
    deepmind.read(written(networks=networks, momentum={}))


@pytest.mark.parametrize(
  ("pickled", "said"),
  [
    (b"N.", "no experiment_state"),
    (b"}.", "no experiment_state"),
    (b"]X\x01\0\0\0aa.", "no experiment_state"),
  ],
)
def test_other_pickles_are_refused(tmp_path, pickled, said):
  path = tmp_path / "other.pkl"
  path.write_bytes(pickled)
  with pytest.raises(WeightsError, match=said):
    deepmind.read(str(path))
