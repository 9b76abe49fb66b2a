"""Schedules against the authors' values and the paper's table."""

import math
import pathlib

import numpy as np
import pytest

from byol_flax.pretrain import schedules
from configs import byol

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
IMAGES = 1281167


def preset_schedules(epochs, batch_size=4096):
  config = byol.get_config(f"epochs={epochs},batch_size={batch_size}")
  total = int(config.epochs * IMAGES / config.batch_size)
  learning_rate = schedules.learning_rate_schedule(
    base_learning_rate=config.base_learning_rate,
    batch_size=config.batch_size,
    warmup_steps=int(config.warmup_epochs * IMAGES / config.batch_size),
    total_steps=total,
  )
  decay = schedules.target_decay_schedule(
    base_target_decay=config.base_target_decay, total_steps=total
  )
  return learning_rate, decay, total


@pytest.mark.parametrize("epochs", [40, 100, 300, 1000])
def test_presets_equal_the_authors(epochs):
  golden = np.load(GOLDENS / "schedules.npz")
  learning_rate, decay, total = preset_schedules(epochs)
  assert total == golden[f"epochs{epochs}_total_steps"]
  steps = golden[f"epochs{epochs}_step"]
  np.testing.assert_allclose(
    learning_rate(steps),
    golden[f"epochs{epochs}_learning_rate"],
    rtol=1e-6,
    atol=1e-6,
  )
  np.testing.assert_allclose(
    decay(steps), golden[f"epochs{epochs}_target_decay"], rtol=1e-6
  )


@pytest.mark.parametrize(
  ("step", "rate", "tau"),
  [  # paper.md §3.4: 1000 epochs at batch size 4096
    (0, 0.0, 0.996),
    (1000, 1.023345, 0.99600010),
    (3126, 3.198977, 0.99600099),
    (3127, 3.2, 0.99600099),
    (78_196, 2.757967, 0.99658579),
    (156_392, 1.625379, 0.998),
    (234_588, 0.477638, 0.99941421),
    (312_783, 0.0, 1.0),
  ],
)
def test_golden_values_of_the_long_preset(step, rate, tau):
  learning_rate, decay, _ = preset_schedules(1000)
  np.testing.assert_allclose(learning_rate(step), rate, rtol=2e-6, atol=1e-6)
  np.testing.assert_allclose(decay(step), tau, atol=1e-7)


def test_batch_512_recipe():  # App. G
  learning_rate, decay, total = preset_schedules(1000, 512)
  assert total == 2_502_279
  warmup = int(10 * IMAGES / 512)
  np.testing.assert_allclose(learning_rate(warmup), 0.8, rtol=1e-6)
  np.testing.assert_allclose(decay(0), 0.9995, rtol=1e-7)


def test_learning_rate_against_its_formula():
  rate = schedules.learning_rate_schedule(
    base_learning_rate=0.3, batch_size=640, warmup_steps=7, total_steps=31
  )
  for step in range(40):
    if step < 7:
      expected = 0.75 * step / 7
    else:
      done = min((step - 7) / 24, 1)
      expected = 0.75 * (1 + math.cos(math.pi * done)) / 2
    np.testing.assert_allclose(rate(step), expected, rtol=1e-5, atol=1e-7)


def test_no_warm_up_starts_at_the_peak():
  rate = schedules.learning_rate_schedule(
    base_learning_rate=0.5, batch_size=512, warmup_steps=0, total_steps=10
  )
  np.testing.assert_allclose(rate(0), 1.0)


def test_the_warm_up_must_be_shorter_than_the_run():
  with pytest.raises(ValueError, match=r"12 steps.*10 steps"):
    schedules.learning_rate_schedule(
      base_learning_rate=0.5, batch_size=512, warmup_steps=12, total_steps=10
    )


def test_constant_target_decays():
  steps = np.arange(11)
  frozen = schedules.target_decay_schedule(base_target_decay=1, total_steps=10)
  np.testing.assert_array_equal(frozen(steps), 1)
  free = schedules.target_decay_schedule(base_target_decay=0, total_steps=10)
  np.testing.assert_allclose(free(5), 0.5, atol=1e-6)
  np.testing.assert_allclose(free(steps[-1]), 1, atol=1e-7)
