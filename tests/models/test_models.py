"""Encoders against the paper's counts; views, BatchNorm, initialisation."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax import trees
from byol_flax.models import batch_norm, byol, pixels, resnet
from input_pipeline.errors import UsageError
from tests import tiny

MAX_POOL = functools.partial(resnet.max_pool, padding="same")
NORM = {"decay": 0.9, "epsilon": 1e-5}
MLP = {
  "layers": 2,
  "hidden_size": 4096,
  "output_size": 256,
  "final_bias": False,
  "final_norm": False,
}
SMALL = "basic:1-1:16-32:16"  # resnet8 without its last group
ENCODER = {
  "architecture": SMALL,
  "width": 1,
  "stem": "small",
  "shortcut": "projection",
  "padding": "same",
  "zero_init_last": False,
  "recompute": False,
}
WEIGHTS = {"initializer": "fan_in", "input_scaling": "imagenet"}
COUNTS = {  # (architecture, width): parameters of the encoder, paper.md §2.5
  ("resnet8", 1): 79_600,  # not in the paper; with the 7 × 7 stem
  ("resnet18", 1): 11_180_736,
  ("resnet18", 2): 44_684_672,
  ("resnet18", 3): 100_511_808,
  ("resnet18", 4): 178_662_144,
  ("resnet34", 1): 21_288_896,
  ("resnet34", 2): 85_102_464,
  ("resnet50", 1): 23_508_032,
  ("resnet50", 2): 93_907_072,
  ("resnet50", 3): 211_197_120,
  ("resnet50", 4): 375_378_176,
  ("resnet101", 1): 42_500_160,
  ("resnet101", 2): 169_771_136,
  ("resnet101", 3): 381_812_928,
  ("resnet101", 4): 678_625_536,
  ("resnet152", 1): 58_143_808,
  ("resnet152", 2): 232_253_568,
  ("resnet152", 3): 522_329_280,
  ("resnet200", 1): 62_624_832,
  ("resnet200", 2): 250_128_512,
  ("resnet200", 3): 562_511_040,
}


def make(
  architecture=SMALL,
  width=1,
  num_classes=10,
  dtype=jnp.float32,
  predictor=(),
  **encoder,
):
  settings = {**ENCODER, "architecture": architecture, "width": width}
  mlp = {**MLP, "hidden_size": 32, "output_size": 16}
  return byol.make_network(
    encoder=settings | encoder,
    projector=mlp,
    predictor=mlp | dict(predictor),
    batch_norm=NORM,
    **WEIGHTS,
    num_classes=num_classes,
    dtype=dtype,
  )


def encoder_shapes(architecture, width, shortcut="projection"):
  norm = resnet.make_norm(**NORM, dtype=jnp.float32, param_dtype=jnp.float32)
  encoder = byol.make_encoder(
    architecture=architecture,
    width=width,
    stem="imagenet",
    shortcut=shortcut,
    padding="same",
    zero_init_last=False,
    recompute=False,
    **WEIGHTS,
    norm=norm,
    dtype=jnp.float32,
  )
  images = jax.ShapeDtypeStruct((1, 1, 64, 64, 3), jnp.float32)

  def init(x):
    return encoder.init_with_output(jax.random.key(0), x, train=True)

  return jax.eval_shape(init, images)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "width"), COUNTS)
def test_parameter_counts(architecture, width):
  output, variables = encoder_shapes(architecture, width)
  count = trees.count(variables["params"])
  assert count == COUNTS[architecture, width]
  features = {"resnet8": 64, "resnet18": 512, "resnet34": 512}
  assert output.shape == (1, 1, features.get(architecture, 2048) * width)


@pytest.mark.parametrize(("width", "count"), [(1, 11_176_512), (2, 44_668_032)])
def test_identity_shortcut_of_torchvision(width, count):
  _, variables = encoder_shapes("resnet18", width, shortcut="identity")
  assert trees.count(variables["params"]) == count


def random_images(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.slow
def test_both_views_in_one_call_equal_two_calls():
  network = make()
  images = random_images(6, 2, 16, 16, 3)
  variables = tiny.init(network, images[:, :1])

  @jax.jit
  def call(variables, views):
    return network.apply(variables, views, train=True, mutable=["batch_stats"])

  both, after_both = call(variables, images)
  first, after_first = call(variables, images[:, :1])
  second, after_second = call({**variables, **after_first}, images[:, 1:])
  for name in ("representation", "projection", "prediction", "logits"):
    one = getattr(both, name)
    two = jnp.concatenate([getattr(first, name), getattr(second, name)], axis=1)
    # Bound: float32 sums of 6 × 16 × 16 terms in another order.
    np.testing.assert_allclose(one, two, rtol=2e-4, atol=2e-4, err_msg=name)
  for a, b in zip(
    jax.tree.leaves(after_both), jax.tree.leaves(after_second), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_batch_norm_against_numpy_per_view():
  layer = batch_norm.BatchNorm(
    decay=0.9, epsilon=1e-5, dtype=jnp.float32, param_dtype=jnp.float32
  )
  x = np.random.default_rng(1).normal(2, 3, (5, 2, 4, 3, 6)).astype(np.float32)
  variables = tiny.init(layer, x)
  scale, offset = np.linspace(0.5, 1.5, 6), np.linspace(-1, 1, 6)
  variables["params"] = {
    "scale": jnp.asarray(scale, jnp.float32),
    "offset": jnp.asarray(offset, jnp.float32),
  }
  stats = {"mean": np.zeros(6), "variance": np.zeros(6)}
  for calls in (1, 2):
    y, changed = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    variables = {**variables, **changed}
    for v in range(2):
      view = x[:, v]
      mean, var = view.mean((0, 1, 2)), view.var((0, 1, 2))
      expected = (view - mean) / np.sqrt(var + 1e-5) * scale + offset
      np.testing.assert_allclose(y[:, v], expected, rtol=1e-4, atol=1e-5)
      stats["mean"] = 0.9 * stats["mean"] + 0.1 * mean
      stats["variance"] = 0.9 * stats["variance"] + 0.1 * var
    for name, biased in stats.items():  # Haiku's de-biased average
      np.testing.assert_allclose(
        changed["batch_stats"][name],
        biased / (1 - 0.9 ** (2 * calls)),
        rtol=1e-5,
      )
    assert changed["batch_stats"]["count"] == 2 * calls
    x = x[::-1] * 0.5 + 1
  y = layer.apply(variables, x, train=False)
  mean = stats["mean"] / (1 - 0.9**4)
  var = stats["variance"] / (1 - 0.9**4)
  expected = (x - mean) / np.sqrt(var + 1e-5) * scale + offset
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_may_pool_first(train):
  """The same values, averages and gradients, whatever the scales' signs."""
  layer = batch_norm.BatchNorm(
    decay=0.9, epsilon=1e-5, dtype=jnp.float32, param_dtype=jnp.float32
  )
  rng = np.random.default_rng(4)
  x = rng.normal(1, 2, (3, 2, 7, 8, 6)).astype(np.float32)
  variables = {
    "params": {
      "scale": jnp.asarray([1.5, -0.7, 0.3, -2.0, 1.0, -1.0]),
      "offset": jnp.linspace(-1, 1, 6),
    },
    "batch_stats": {
      "mean": jnp.linspace(0, 2, 6),
      "variance": jnp.linspace(1, 3, 6),
      "count": jnp.int32(4),
    },
  }
  gradient = rng.normal(size=(3, 2, 4, 4, 6)).astype(np.float32)

  def run(params, x, first):
    y, changed = layer.apply(
      {**variables, "params": params},
      x,
      train=train,
      max_pool=MAX_POOL if first else None,
      mutable=["batch_stats"],
    )
    y = y if first else MAX_POOL(y)
    return jnp.sum(y * gradient), (y, changed)

  outcomes = [
    jax.value_and_grad(run, argnums=(0, 1), has_aux=True)(
      variables["params"], x, first
    )
    for first in (False, True)
  ]
  for a, b in zip(*map(jax.tree.leaves, outcomes), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_recomputation_changes_no_number():
  images = random_images(4, 2, 16, 16, 3)
  plain = make()
  variables = tiny.init(plain, images)

  def run(params, recompute):
    given, network = {**variables, "params": params}, make(recompute=recompute)
    outputs, changed = network.apply(
      given, images, train=True, mutable=["batch_stats"]
    )
    return jnp.sum(outputs.prediction**2), changed

  found = jax.jit(jax.grad(run, has_aux=True), static_argnums=1)
  outcomes = [found(variables["params"], again) for again in (False, True)]
  for a, b in zip(*map(jax.tree.leaves, outcomes), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_labels_never_reach_the_encoder():
  network = make()
  images = random_images(4, 1, 16, 16, 3)
  variables = tiny.init(network, images)

  def loss(params):
    given = {**variables, "params": params}
    outputs, _ = network.apply(given, images, train=True, mutable="batch_stats")
    return outputs.logits[..., 3].sum()

  grads = jax.jit(jax.grad(loss))(variables["params"])
  assert np.any(grads["classifier"]["kernel"])
  for part in ("encoder", "projector", "predictor"):
    assert not any(np.any(g) for g in jax.tree.leaves(grads[part]))


@pytest.mark.slow
def test_without_labels_there_is_no_classifier():
  network = make(num_classes=0)
  images = random_images(2, 1, 16, 16, 3)
  variables = tiny.init(network, images)
  assert set(variables["params"]) == {"encoder", "projector", "predictor"}
  call = jax.jit(functools.partial(network.apply, train=False))
  assert call(variables, images).logits.shape == (2, 1, 0)


@pytest.mark.slow
def test_a_network_is_imported_without_the_input():
  """Whoever only wants a network need not compile or install the input's."""
  program = (
    "import sys, byol_flax.models.byol\n"
    "print({'cv2', 'grain', 'numba', 'PIL'} & set(sys.modules) or 'none')"
  )
  found = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=True
  )
  assert found.stdout == "none\n"


def test_normalised_range_is_the_papers():
  mean, std = np.array([pixels.IMAGENET_MEAN, pixels.IMAGENET_STD])
  low, high = (0 - mean) / std, (1 - mean) / std
  np.testing.assert_allclose(low, [-2.11790, -2.03571, -1.80444], atol=1e-5)
  np.testing.assert_allclose(high, [2.24891, 2.42857, 2.64], atol=1e-5)


@pytest.mark.parametrize(
  ("how", "mean", "std"),
  [
    ("imagenet", pixels.IMAGENET_MEAN, pixels.IMAGENET_STD),
    ("unit", 0, 1),
  ],
)
def test_images_are_scaled_once(how, mean, std):
  colors = random_images(2, 3, 3)
  np.testing.assert_allclose(
    pixels.scale(colors, how, jnp.float32),
    (colors / 255 - mean) / std,
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.slow
def test_weights_start_as_the_authors_do():
  _, variables = jax.jit(
    lambda: make("basic:2:512:8").init_with_output(
      jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3), jnp.uint8), train=True
    )
  )()
  params = variables["params"]["encoder"]["group0_block1"]
  kernel = np.asarray(params["conv1"]["kernel"])
  sigma = 1 / np.sqrt(3 * 3 * 512)  # cut at two deviations and not rescaled
  assert np.abs(kernel).max() <= 2 * sigma
  assert np.abs(kernel).max() > 1.99 * sigma
  np.testing.assert_allclose(kernel.std(), 0.87962566 * sigma, rtol=0.01)
  np.testing.assert_array_equal(params["norm1"]["scale"], 1)
  np.testing.assert_array_equal(params["norm1"]["offset"], 0)


@pytest.mark.slow
def test_zero_init_touches_only_the_last_norm_of_each_block():
  network = make(zero_init_last=True)
  images = jnp.zeros((1, 1, 8, 8, 3), jnp.uint8)
  params = tiny.init(network, images)["params"]
  block = params["encoder"]["group1_block0"]
  assert not np.any(block["norm1"]["scale"])
  assert np.all(block["norm0"]["scale"] == 1)
  assert np.all(block["shortcut_norm"]["scale"] == 1)


@pytest.mark.slow
def test_bfloat16_activations_keep_float32_statistics_and_outputs():
  network = make(dtype=jnp.bfloat16)
  images = random_images(8, 2, 16, 16, 3)
  variables = tiny.init(network, images)

  def call(network):
    both = functools.partial(network.apply, train=True, mutable="batch_stats")
    return jax.jit(both)(variables, images)

  outputs, changed = call(network)
  for leaf in jax.tree.leaves((variables["params"], outputs)):
    assert leaf.dtype == jnp.float32
  for path, leaf in jax.tree_util.tree_flatten_with_path(changed)[0]:
    counter = jax.tree_util.keystr(path).endswith("['count']")
    assert leaf.dtype == (jnp.int32 if counter else jnp.float32)
  exact, _ = call(make())
  cosine = jnp.sum(outputs.representation * exact.representation, -1) / (
    jnp.linalg.norm(outputs.representation, axis=-1)
    * jnp.linalg.norm(exact.representation, axis=-1)
  )
  assert jnp.min(cosine) > 0.99
  assert not np.array_equal(outputs.representation, exact.representation)


@pytest.mark.slow
@pytest.mark.parametrize("max_pool", [None, MAX_POOL])
def test_constant_channels_of_large_value_stay_finite(max_pool):
  layer = batch_norm.BatchNorm(
    **NORM, dtype=jnp.float32, param_dtype=jnp.float32
  )
  # E[x²] - E[x]² of most of these is below -epsilon, for want of digits.
  values = jnp.asarray(np.random.default_rng(0).uniform(100, 1e6, 64), "f4")
  x = jnp.broadcast_to(values, (6, 2, 7, 7, 64))
  below = jnp.mean(x**2, (0, 2, 3)) - jnp.mean(x, (0, 2, 3)) ** 2
  assert jnp.min(below) < -NORM["epsilon"]
  variables = tiny.init(layer, x)

  def loss(x):
    y, changed = layer.apply(
      variables, x, train=True, max_pool=max_pool, mutable=["batch_stats"]
    )
    return jnp.mean(y**2), (y, changed["batch_stats"]["variance"])

  gradient, (y, variance) = jax.grad(loss, has_aux=True)(x)
  assert jnp.all(jnp.isfinite(y))
  assert jnp.all(jnp.isfinite(gradient))
  assert jnp.all(variance >= 0)


def test_a_width_that_does_not_suit_is_told():
  with pytest.raises(UsageError, match=r"width is 0\.01.*multiple of 4"):
    make(width=0.01)


def test_predictor_and_projector_must_fit_if_there_is_a_predictor():
  with pytest.raises(UsageError, match=r"output_size is 16.*is 8;"):
    make(predictor={"output_size": 8})
  assert not make(predictor={"output_size": 8, "layers": 0}).predictor.layers
