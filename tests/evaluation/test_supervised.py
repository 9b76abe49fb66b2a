"""A network trained with labels is an encoder for other protocols."""

import pytest

from byol_flax.evaluation import encoder, supervised
from configs import supervised as supervised_config
from input_pipeline import rand_augment
from input_pipeline.errors import UsageError
from tests.evaluation import settings


def setting(workdir, opened=None, **changes):
  return settings.setting(
    supervised_config.get_config(),
    workdir,
    opened=opened,
    **{
      "epochs": 6.0,
      "warmup_epochs": 0.5,
      "batch_size": 64,
      "base_learning_rate": 0.8,
      **changes,
    },
  )


@pytest.mark.slow
def test_a_supervised_network_learns_and_opens(tmp_path):
  assert settings.small_config().data.split == "train"
  begun = setting(tmp_path, train_split="train[:80%]")
  found = supervised.run(begun)
  assert found["top1"] > 0.6  # chance is 0.1
  assert found["top5"] > found["top1"]
  assert supervised.run(begun) == found

  mesh = settings.mesh_of(2)
  opened = encoder.open_encoder(f"{tmp_path}/network", mesh)
  assert opened.has_averages
  assert opened.provenance["step"] == 107
  assert opened.provenance["trained_on"]["split"] == "train[:80%]"
  assert (
    opened.module.architecture == settings.untrained(mesh).module.architecture
  )
  assert opened.module.width == 0.25
  with pytest.raises(UsageError, match="was trained already; expected random"):
    supervised.run(setting(tmp_path, opened))


def test_rand_augment_is_off_unless_asked_for():
  plain, strong = (
    supervised.policy_of(supervised_config.get_config(arg))
    for arg in ("", "rand_augment=1")
  )
  assert plain is None
  assert strong == rand_augment.RandAugment(layers=2, magnitude=9.0)


def test_a_warm_up_is_shorter_than_the_training(tmp_path):
  with pytest.raises(UsageError, match="warmup_epochs is 6 of 6 epochs"):
    supervised.run(setting(tmp_path, warmup_epochs=6.0))
