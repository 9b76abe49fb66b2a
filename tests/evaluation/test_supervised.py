"""A network trained with labels is an encoder for other protocols."""

import io

import jax
import pytest

from byol_flax import sharding
from byol_flax.evaluation import encoder, protocol, supervised
from byol_flax.runs.distributed import Processes
from configs import byol_digits
from configs import supervised as supervised_config
from input_pipeline.errors import UsageError


def setting(workdir, opened, mesh, **changes):
  config = supervised_config.get_config()
  config.update(
    {
      "epochs": 6.0,
      "warmup_epochs": 0.5,
      "batch_size": 64,
      "base_learning_rate": 0.8,
      "num_workers": 0,
      **changes,
    }
  )
  return protocol.Setting(
    config=config,
    encoder=opened,
    workdir=str(workdir),
    mesh=mesh,
    processes=Processes(),
    tell=lambda line: None,
    console=io.StringIO(),
  )


def small_config():
  config = byol_digits.get_config()
  config.model.encoder.width = 0.25
  return config


@pytest.mark.slow
def test_a_supervised_network_learns_and_opens(tmp_path):
  mesh = sharding.make_mesh(jax.devices()[:2])
  random = encoder.open_encoder(
    "random:x", mesh, read_config=lambda path: small_config()
  )
  found = supervised.run(setting(tmp_path, random, mesh))
  assert found["top1"] > 0.6  # chance is 0.1
  assert found["top5"] > found["top1"]
  assert supervised.run(setting(tmp_path, random, mesh)) == found

  opened = encoder.open_encoder(f"{tmp_path}/network", mesh)
  assert opened.has_averages
  assert opened.provenance["step"] == 134
  assert opened.module.architecture == random.module.architecture
  assert opened.module.width == 0.25
  with pytest.raises(UsageError, match="was trained already; expected random"):
    supervised.run(setting(tmp_path, opened, mesh))


def test_a_warm_up_is_shorter_than_the_training(tmp_path):
  mesh = sharding.make_mesh(jax.devices()[:1])
  random = encoder.open_encoder(
    "random:x", mesh, read_config=lambda path: small_config()
  )
  with pytest.raises(UsageError, match="warmup_epochs is 6 of 6 epochs"):
    supervised.run(setting(tmp_path, random, mesh, warmup_epochs=6.0))
