"""Fine-tuning: the authors' updates, the loss, and decay."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax.evaluation import finetuning, whole_network
from byol_flax.pretrain import metrics
from configs import finetune as finetune_config
from tests.evaluation import settings
from tests.pretrain import test_golden_step as golden_step

RNG = np.random.default_rng(5)


def golden_at(golden, t):
  """Parameters and averages of the authors after t updates."""
  classifier = {
    name: golden[f"finetune|classifier_{t}|linear|{leaf}"]
    for name, leaf in (("kernel", "w"), ("bias", "b"))
  }
  encoder = golden_step.golden_tree(golden, f"finetune|encoder_{t}")
  averages = golden_step.golden_tree(golden, f"finetune|encoder_bn_{t}")
  return {**encoder, "classifier": classifier}, averages


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_step.NETWORKS)
def test_six_updates_are_those_of_the_authors(name):
  golden = np.load(golden_step.GOLDENS / f"linear_step_{name}.npz")
  with jax.enable_x64(True):
    module = golden_step.encoder_of(name)
    params, averages = jax.tree.map(jnp.asarray, golden_at(golden, 0))
    state = finetuning.FinetuneState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      # The pre-training before it moved the averages twice an update.
      batch_stats=golden_step.with_counts(averages, 10),
      momentum=jax.tree.map(jnp.zeros_like, params),
    )
    rates = jnp.asarray(golden["finetune|learning_rate"])
    step = jax.jit(finetuning.make_step(module, momentum=0.9, smoothing=0.0))
    no_decay = jnp.zeros(())
    images, labels = golden["finetune|images"], golden["finetune|labels"]
    for t in range(6):
      batch = {"image": images[t], "label": labels[t]}
      state, report = step(state, batch, rates[t], no_decay)
      np.testing.assert_allclose(
        report["train/loss"], golden[f"finetune|loss_{t}"], rtol=1e-9
      )
      if f"finetune|encoder_{t + 1}" in {
        "|".join(key.split("|")[:2]) for key in golden.files
      }:
        params, averages = golden_at(golden, t + 1)
        golden_step.assert_close(state.params, params, 1.0)
        counted = golden_step.with_counts(averages, 10 + t + 1)
        golden_step.assert_close(state.batch_stats, counted, 1.0)
    forward = jax.jit(
      functools.partial(finetuning.forward, module, train=False)
    )
    logits, _ = forward(state.params, state.batch_stats, images[0])
    expected = golden["finetune|logits_after"]
    np.testing.assert_allclose(
      logits, expected, rtol=0, atol=1e-8 * np.abs(expected).max()
    )


def test_smoothed_loss_against_numpy():
  logits = RNG.normal(0, 3, (6, 4))
  labels = RNG.integers(0, 4, 6)
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  target = 0.9 * np.eye(4)[labels] + 0.1 / 4
  expected = -(target * np.log(p)).sum(-1)
  found = finetuning.cross_entropy(
    jnp.asarray(logits), jnp.asarray(labels), 0.1
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_several_classes_an_image_against_numpy():
  """What does not count, -1, changes neither loss nor gradient."""
  logits = RNG.normal(0, 3, (6, 4))
  labels = RNG.integers(-1, 2, (6, 4))
  p = 1 / (1 + np.exp(-logits))
  expected = -np.where(labels == 1, np.log(p), np.log(1 - p))[labels >= 0]

  def loss(x):
    each = finetuning.binary_cross_entropy(x, jnp.asarray(labels))
    return metrics.labelled_mean(each, jnp.asarray(labels))

  value, slope = jax.value_and_grad(loss)(jnp.asarray(logits))
  np.testing.assert_allclose(value, expected.mean(), rtol=1e-5)
  counted = (labels >= 0).sum()
  expected = np.where(labels >= 0, (p - (labels == 1)) / counted, 0)
  np.testing.assert_allclose(slope, expected, atol=1e-6)


@pytest.mark.slow
def test_the_trainings_of_a_grid_share_one_program():
  mesh = settings.mesh_of(1)
  encoder = settings.untrained(mesh)
  functions = whole_network.make_functions(
    finetune_config.get_config(), encoder, mesh, num_classes=10
  )
  size = encoder.crop.size
  batch = {
    "image": RNG.integers(0, 256, (16, size, size, 3), np.uint8),
    "label": np.arange(16, dtype=np.int32) % 10,
  }
  rates = []
  for sgd in (
    whole_network.Sgd(0.1, 0, 10, 0.0),
    whole_network.Sgd(0.4, 2, 7, 1e-3),
  ):
    state = functions.create_state(encoder.variables)
    for _ in range(2):
      state, report = functions.update(state, batch, sgd)
    rates.append(float(report["train/learning_rate"]))
  assert rates == pytest.approx([0.1 * (1 + np.cos(np.pi / 10)) / 2, 0.2])
  assert functions.update._cache_size() == 1
