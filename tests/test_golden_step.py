"""Five updates equal those of the authors' Haiku code, in float64.

In float32 one ReLU that flips on rounding moves gradients by percents, so the
whole step is compared in float64 only (see the README beside the goldens).
"""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax import optimizers, schedules, train_state, train_step
from byol_flax.models import byol, heads, resnet

GOLDENS = pathlib.Path(__file__).parent / "goldens"
NETWORKS = {
  "TinyResNet": resnet.Architecture(
    bottleneck=False, blocks=(1, 1, 1, 1), channels=(8, 8, 8, 8)
  ),
  "SmallBottleneck": resnet.Architecture(
    bottleneck=True, blocks=(2, 1, 2, 1), channels=(16, 32, 32, 64)
  ),
}
LEAVES = {
  "w": "kernel",
  "b": "bias",
  "scale": "scale",
  "offset": "offset",
  "mean_ema": "mean",
  "var_ema": "variance",
}
NO_GRADIENT = ("projector/linear0/bias", "predictor/linear0/bias")


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def our_path(module, leaf):
  """The path in our tree of a Haiku module's leaf."""
  if averages := re.fullmatch(r"(.*)/~/(mean_ema|var_ema)", module):
    module, leaf = averages.groups()
  module = re.sub(r"^(tiny_res_net|small)/~/", "encoder/", module)
  module = module.replace("initial_conv", "stem_conv")
  module = module.replace("initial_batchnorm", "stem_norm")
  module = re.sub(
    r"block_group_(\d)/~/block_(\d+)/~/", r"group\1_block\2/", module
  )
  module = re.sub(r"batchnorm_(\d)", r"norm\1", module)
  module = re.sub(r"/conv_(\d)", r"/conv\1", module)
  module = module.replace("shortcut_batchnorm", "shortcut_norm")
  module = module.replace("batch_norm", "norm")
  if module.endswith("linear"):
    module += "0"
  module = module.replace("linear_1", "linear1")
  return f"{module}/{LEAVES[leaf]}"


def golden_tree(golden, group, dtype=np.float64):
  """Our nested dict of the arrays of one group of a golden file."""
  tree: dict = {}
  for key in golden.files:
    head, *names = key.split("|")
    if head != group or names[-1] in ("counter", "hidden"):
      continue
    module, leaf = names
    value = golden[key].astype(dtype)
    path = our_path(module, leaf).split("/")
    if path[-1] in ("scale", "offset", "mean", "variance"):
      value = value.reshape(-1)
    node = tree
    for name in path[:-1]:
      node = node.setdefault(name, {})
    node[path[-1]] = value
  return tree


def with_counts(tree, count):
  """Adds our BatchNorm counter beside every running mean."""
  if "mean" in tree:
    return {**tree, "count": np.int32(count)}
  return {name: with_counts(sub, count) for name, sub in tree.items()}


def flat(tree):
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    "/".join(str(key.key) for key in path): np.asarray(leaf)
    for path, leaf in leaves
  }


def assert_close(ours, golden, learning_rate_sum):
  """1e-8 of the leaf's largest value; biases before a BatchNorm apart."""
  ours, golden = flat(ours), flat(golden)
  assert ours.keys() == golden.keys()
  for name, expected in golden.items():
    if name in NO_GRADIENT:
      np.testing.assert_allclose(
        ours[name], expected, rtol=0, atol=1e-12 * learning_rate_sum
      )
    else:
      worst = np.max(np.abs(ours[name] - expected))
      assert worst <= 1e-8 * np.max(np.abs(expected)), (name, worst)


@pytest.mark.parametrize("name", NETWORKS)
def test_five_updates_equal_the_authors(name):
  golden = np.load(GOLDENS / f"step_{name}.npz")
  types = {"dtype": jnp.float64, "param_dtype": jnp.float64}
  norm = resnet.make_norm(decay=0.9, epsilon=1e-5, **types)
  mlp = {"hidden_size": 32, "output_size": 16, "final_bias": False}
  network = byol.ByolNetwork(
    encoder=resnet.ResNet(
      architecture=NETWORKS[name],
      width=1,
      stem="imagenet",
      shortcut="projection",
      zero_init_last=False,
      norm=norm,
      **types,
    ),
    projector=heads.MLP(**mlp, norm=norm, **types),
    predictor=heads.MLP(**mlp, norm=norm, **types),
    num_classes=10,
    **types,
  )
  schedule = schedules.learning_rate_schedule(
    base_learning_rate=2.0, batch_size=16, warmup_steps=2, total_steps=50
  )
  # The authors' rate is float32 even in their float64 run, and 1e-8 of the
  # parameters shows it: their values go in, ours are compared with them.
  rates = np.array([golden[f"log_{k}|learning_rate"] for k in range(5)])
  np.testing.assert_allclose(schedule(np.arange(5)), rates, rtol=1e-7)

  def learning_rate(step):
    return jnp.asarray(rates, jnp.float64)[step]

  target_decay = schedules.target_decay_schedule(
    base_target_decay=0.9, total_steps=50
  )
  tx = optimizers.lars(
    learning_rate, weight_decay=1.5e-6, momentum=0.9, trust_coefficient=1e-3
  )
  state = train_state.create_byol_state(
    network,
    tx,
    seed=0,
    image_size=golden["batch_0|view1"].shape[1],
    target_init="independent",
  )
  abstract = state
  state = state.replace(
    online=state.online.replace(
      params=golden_tree(golden, "online_0"),
      batch_stats=with_counts(golden_tree(golden, "online_bn_0"), 0),
    ),
    target=state.target.replace(
      params=golden_tree(golden, "target_0"),
      batch_stats=with_counts(golden_tree(golden, "target_bn_0"), 0),
    ),
  )
  assert jax.tree.structure(state) == jax.tree.structure(abstract)
  step_fn = jax.jit(
    train_step.make_train_step(
      network,
      learning_rate=learning_rate,
      target_decay=target_decay,
      accumulation_steps=1,
    )
  )

  rate_sum = 0.0
  for k in range(5):
    batch = {
      "view1": golden[f"batch_{k}|view1"],
      "view2": golden[f"batch_{k}|view2"],
      "label": golden[f"batch_{k}|labels"],
    }
    state, metrics = step_fn(state, batch)
    rate_sum += float(learning_rate(k))
    for ours, theirs in (
      ("train/byol_loss", "repr_loss"),
      ("train/classifier_loss", "classif_loss"),
      ("train/target_decay", "tau"),
    ):
      np.testing.assert_allclose(
        metrics[ours], golden[f"log_{k}|{theirs}"], rtol=1e-9
      )
    for ours, theirs in (
      ("train/top1", "top1_accuracy"),
      ("train/top5", "top5_accuracy"),
    ):  # logged in float32 by the authors' code
      np.testing.assert_allclose(
        metrics[ours], golden[f"log_{k}|{theirs}"], rtol=1e-6
      )
    done = k + 1
    if done == 1:
      trace = state.online.opt_state[2].trace
      assert_close(trace, golden_tree(golden, "momentum_1"), 1.0)
    if done in (1, 2, 5):
      for side in ("online", "target"):
        ours = getattr(state, side)
        assert_close(
          ours.params, golden_tree(golden, f"{side}_{done}"), rate_sum
        )
        assert_close(
          ours.batch_stats,
          with_counts(golden_tree(golden, f"{side}_bn_{done}"), 2 * done),
          1.0,
        )

  outputs = network.apply(
    state.online.variables, golden["batch_4|view1"][:, None], train=False
  )
  for ours, theirs in (
    (outputs.projection, "projection"),
    (outputs.prediction, "prediction"),
    (outputs.logits, "logits"),
  ):
    key = f"inference_after|{theirs}"
    np.testing.assert_allclose(ours[:, 0], golden[key], rtol=1e-8, atol=1e-10)
