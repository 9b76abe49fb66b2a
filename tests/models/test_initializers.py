"""Deviations of the weights that a network starts with, and who gets which."""

import jax
import numpy as np
import pytest
import tensorflow as tf

from byol_flax.models import byol
from byol_flax.models.initializers import INITIALIZERS
from tests.models import test_models

CONVOLUTION, LINEAR = (3, 3, 64, 200), (300, 400)
FAN_IN = {CONVOLUTION: 3 * 3 * 64, LINEAR: 300}


def deviation_of(name, shape):
  if name == "simclr" and shape == LINEAR:
    return 0.01
  factor = {"fan_in": 0.87962566, "he": np.sqrt(2), "simclr": 1}[name]
  return factor / np.sqrt(FAN_IN[shape])


@pytest.mark.parametrize("shape", [CONVOLUTION, LINEAR])
@pytest.mark.parametrize("name", INITIALIZERS)
def test_deviations(name, shape):
  init = INITIALIZERS[name][shape == LINEAR]
  drawn = np.asarray(init(jax.random.key(3), shape))
  expected = deviation_of(name, shape)
  # Of n normal numbers the deviation is off by 1/sqrt(2 n) of it; by 4 at most.
  assert abs(drawn.std() / expected - 1) < 4 / np.sqrt(2 * drawn.size)
  assert abs(drawn.mean()) < 4 * expected / np.sqrt(drawn.size)


def test_convolutions_of_simclr_start_as_tensorflows():
  """Kolmogorov-Smirnov at p = 0.001 against what SimCLR's code calls."""
  theirs = tf.keras.initializers.VarianceScaling(seed=1)(CONVOLUTION).numpy()
  init = INITIALIZERS["simclr"].convolution
  ours = np.asarray(init(jax.random.key(0), CONVOLUTION))
  places = np.linspace(-0.12, 0.12, 4001)
  shares = [
    np.searchsorted(np.sort(drawn.ravel()), places) / drawn.size
    for drawn in (ours, theirs)
  ]
  assert np.max(np.abs(shares[0] - shares[1])) < 1.95 * np.sqrt(2 / ours.size)
  assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=1e-2)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_every_part_of_a_network_gets_its_own(name):
  network = byol.make_network(
    encoder=test_models.ENCODER,
    projector=test_models.MLP,
    predictor=test_models.MLP,
    batch_norm=test_models.NORM,
    initializer=name,
    input_scaling="unit",
    num_classes=3,
    dtype=np.float32,
  )
  convolution, linear = INITIALIZERS[name]
  assert network.encoder.kernel_init is convolution
  assert network.projector.kernel_init is linear
  assert network.predictor.kernel_init is linear
  assert network.classifier_init is linear
