"""FCRN's decoder against loops, and its loss against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax import sharding, trees
from byol_flax.models import depth, initializers
from tests.evaluation import settings
from tests.models import dense_networks

RNG = np.random.default_rng(3)
TYPES = {"dtype": jnp.float32, "param_dtype": jnp.float32}
# Zeros before and after the rows and the columns, by kernel (paper.md §7.3).
PADS = {
  "a": ((1, 1), (1, 1)),
  "b": ((1, 0), (1, 1)),
  "c": ((1, 1), (1, 0)),
  "d": ((1, 0), (1, 0)),
}
SHAPES = {"a": (3, 3), "b": (2, 3), "c": (3, 2), "d": (2, 2)}


def identity(name):
  """In place of a BatchNorm."""
  return lambda x, train: x


def up_convolution(x, channels=3, norm=identity):
  """Of our up-convolution: its values, and its parameters as random numbers."""
  module = depth.UpConvolution(
    channels, kernel_init=initializers.fan_in, norm=norm, **TYPES
  )
  variables = module.init(jax.random.key(0), x, train=True)
  variables = jax.tree.map(lambda w: RNG.normal(size=w.shape), variables)
  return np.asarray(module.apply(variables, x, train=True)), variables["params"]


def by_loops(x, params):
  """[h, w, C'] -> [2h, 2w, C], one number at a time."""
  height, width, _ = x.shape
  found = np.zeros((2 * height, 2 * width, len(params["a"]["bias"])))
  places = {"a": (0, 0), "b": (1, 0), "c": (0, 1), "d": (1, 1)}
  for name, (odd_row, odd_column) in places.items():
    padded = np.pad(x, (*PADS[name], (0, 0)))
    kernel, bias = params[name]["kernel"], params[name]["bias"]
    assert kernel.shape[:2] == SHAPES[name]
    for i in range(height):
      for j in range(width):
        for f in range(len(bias)):
          total = bias[f]
          for u in range(kernel.shape[0]):
            for v in range(kernel.shape[1]):
              for c in range(x.shape[2]):
                total += padded[i + u, j + v, c] * kernel[u, v, c, f]
          found[2 * i + odd_row, 2 * j + odd_column, f] = total
  return found


@pytest.mark.slow
def test_interleaving_is_that_of_loops():
  x = RNG.normal(size=(2, 1, 3, 4, 5)).astype(np.float32)
  found, params = up_convolution(x)
  expected = [by_loops(image, params) for image in x[:, 0]]
  np.testing.assert_allclose(found[:, 0], expected, atol=1e-5)


@pytest.mark.slow
def test_an_up_convolution_is_unpooling_and_one_convolution_of_5_by_5():
  """Rows and columns of odd number lie two further on in the authors' code.

  By the definition, pixels are unpooled to the even places, and an odd place
  lies between the two pixels that it is made of. The code makes place 2i + 1 of
  pixels i - 1 and i, which lie around place 2i - 1.
  """
  x = RNG.normal(size=(1, 1, 4, 6, 2)).astype(np.float32)
  found, params = up_convolution(x, channels=1)
  kernel = np.zeros((5, 5, 2))
  starts = {"a": (0, 0), "b": (1, 0), "c": (0, 1), "d": (1, 1)}
  for name, (u, v) in starts.items():
    kernel[u::2, v::2] = params[name]["kernel"][..., 0]
  unpooled = np.zeros((8, 12, 2))
  unpooled[::2, ::2] = x[0, 0]
  padded = np.pad(unpooled, ((4, 2), (4, 2), (0, 0)))
  # Entry (p, q) is the value at place (p - 2, q - 2).
  values = np.zeros((10, 14))
  for p in range(10):
    for q in range(14):
      values[p, q] = np.sum(padded[p : p + 5, q : q + 5] * kernel)
  for name, (odd_row, odd_column) in starts.items():
    place = found[0, 0, odd_row::2, odd_column::2, 0] - params[name]["bias"]
    rows = 2 - odd_row + 2 * np.arange(4)
    columns = 2 - odd_column + 2 * np.arange(6)
    np.testing.assert_allclose(place, values[np.ix_(rows, columns)], atol=1e-5)


# Counted by hand from paper.md §7.3, for C = 2048 channels of ResNet-50. A
# convolution has taps · inputs · outputs weights and a bias for each output, a
# BatchNorm two numbers for each channel. An up-projection from 2n to n channels
# has two branches of 9 + 6 + 6 + 4 = 25 taps with four biases and a BatchNorm,
# and one 3×3 convolution with a BatchNorm:
#   2 (25 · 2n · n + 4n + 2n) + 9 n · n + n + 2n = 109 n² + 15 n.
#   n = 512  28,581,376    n = 256  7,147,264
#   n = 128   1,787,776    n = 64     447,424
# 1×1, 2048 -> 1024: 2,098,176, and its BatchNorm 2,048. Last layer: 577.
DECODER = 28_581_376 + 7_147_264 + 1_787_776 + 447_424 + 2_098_176 + 2_048 + 577
ENCODER = 23_508_032  # paper.md §2.1: 25.557 million without the classifier


@pytest.mark.slow
def test_shapes_and_parameters_of_resnet50():
  """Laina et al. give 63.6 million parameters for this network."""
  module = depth.Fcrn(
    dense_networks.resnet50(), batch_groups=1, frozen_norm=False
  )
  images = jax.ShapeDtypeStruct((2, 228, 304, 3), jnp.uint8)
  found, variables = jax.eval_shape(
    functools.partial(module.init_with_output, train=True),
    jax.random.key(0),
    images,
  )
  assert (found.shape, found.dtype) == ((2, 128, 160), jnp.float32)
  params = variables["params"]
  assert trees.count(params["head"]) == DECODER
  assert trees.count(params["encoder"]) == ENCODER
  assert round((DECODER + ENCODER) / 1e6, 1) == 63.6
  maps = dense_networks.map_shapes(module.encoder, variables, (228, 304))
  assert maps[-1] == (8, 10, 2048)


def huber_by_numpy(predicted, true, share):
  valid = true > 0
  e = np.abs(predicted[valid].astype(np.float64) - true[valid])
  c = share * e.max()
  return np.mean(np.where(e <= c, e, (e**2 + c**2) / (2 * c))), c


@pytest.mark.parametrize("devices", [1, 8])
def test_loss_is_that_of_numpy(devices):
  """The largest error lies on one device, and sets the bound for all."""
  true = RNG.uniform(0.5, 9, (8, 5, 6)).astype(np.float32)
  predicted = true + RNG.normal(0, 1, true.shape).astype(np.float32)
  predicted[3, 2, 1] += 9
  true[RNG.random(true.shape) < 0.3] = 0
  true[3, 2, 1] = 2.0
  given = sharding.put_batch(
    settings.mesh_of(devices), {"predicted": predicted, "true": true}
  )
  loss, error = jax.jit(depth.reverse_huber, static_argnames="share")(
    **given, share=0.2
  )
  expected, _ = huber_by_numpy(predicted, true, 0.2)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  valid = true > 0
  np.testing.assert_allclose(
    error, np.abs(predicted - true)[valid].mean(), rtol=1e-5
  )


@pytest.mark.slow
def test_gradient_of_loss_by_differences():
  """With the bound held, as the gradient does not see that it moves."""
  with jax.enable_x64(True):
    true = RNG.uniform(1, 5, (2, 3, 4))
    predicted = true + RNG.choice([-1, 1], true.shape) * RNG.uniform(
      0.1, 2, true.shape
    )
    true[0, 0, 0] = 0
    value = lambda p: depth.reverse_huber(p, true, 0.2)[0]  # noqa: E731
    gradient = np.asarray(jax.grad(value)(jnp.asarray(predicted)))
    _, c = huber_by_numpy(predicted, true, 0.2)

    def held(p):
      e = np.abs(p - true)[true > 0]
      return np.mean(np.where(e <= c, e, (e**2 + c**2) / (2 * c)))

    for index in np.ndindex(true.shape):
      step = np.zeros_like(true)
      step[index] = 1e-6
      slope = (held(predicted + step) - held(predicted - step)) / 2e-6
      np.testing.assert_allclose(gradient[index], slope, atol=1e-7)
    assert gradient[0, 0, 0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("true", [0.0, 1.0])
def test_no_valid_pixel_and_a_perfect_prediction_cost_nothing(true):
  (loss, _), slope = jax.value_and_grad(
    lambda p: depth.reverse_huber(p, jnp.full((1, 2, 2), true), 0.2),
    has_aux=True,
  )(jnp.ones((1, 2, 2)))
  assert loss == 0
  # |e| has no slope at 0; one between -1 and 1 is as good as any other.
  assert (np.abs(slope) <= (0.25 if true else 0)).all()
