"""How a config's numbers follow the batch size."""

import numpy as np
import pytest

from byol_flax.pretrain import scaling, schedules
from configs import byol_digits


def scaled(batch_size, rule, total_steps, target="average"):
  config = byol_digits.get_config()
  config.objective.target = target
  config.batch_size, config.scaling = batch_size, rule
  decay = schedules.target_decay_schedule(
    base_target_decay=config.base_target_decay, total_steps=total_steps
  )
  return scaling.scale(config, decay)


@pytest.mark.parametrize("batch_size", [16, 256])
def test_the_target_follows_as_fast_measured_in_images(batch_size):
  """A target that starts at 0 and follows 1: where it is after each share."""
  reference, factor = 64, batch_size / 64
  steps = {reference: 640, batch_size: int(640 / factor)}
  left = {}
  for size, total in steps.items():
    decay = scaled(size, "ema", total).target_decay
    values = np.asarray([decay(k) for k in range(total)], np.float64)
    left[size] = np.cumsum(np.log(values))
  shares = np.arange(1, 11) * 0.1 * 640
  for share in shares:
    ours = left[batch_size][int(share / factor) - 1]
    expected = left[reference][int(share) - 1]
    assert ours == pytest.approx(expected, rel=0.005)
  linear = scaled(batch_size, "linear", steps[batch_size]).target_decay(0)
  assert linear == pytest.approx(0.99)


def test_what_was_changed_is_said():
  sentence = scaled(256, "ema", 100).sentence
  for part in (
    "4 times the 64",
    "from 3 to 12",
    "0.99^4 = 0.960596",
    "1.5e-06",
  ):
    assert part in sentence
  without = scaled(256, "ema", 100, "online_stopped").sentence
  assert "from 3 to 12, and the weight decay stays 1.5e-06" in without
  assert not scaled(256, "linear", 100).sentence
  assert not scaled(64, "ema", 100).sentence
