"""An evaluation of a small untrained encoder on parts of the digits."""

import functools
import io

import jax

from byol_flax import sharding
from byol_flax.evaluation import encoder, protocol
from byol_flax.runs.distributed import Processes
from configs import byol_digits

PARTS = {"train_split": "train[:60%]", "valid_split": "train[60%:]"}


def small_config():
  """Of pre-training, with an encoder that compiles in seconds."""
  config = byol_digits.get_config()
  # A detector cuts it before its last group, so there are two.
  config.model.encoder.update(architecture="basic:1-1:16-64:16", width=0.25)
  return config


def mesh_of(devices):
  return sharding.make_mesh(jax.devices()[:devices])


@functools.cache
def untrained(mesh):
  """One for all tests, which leave it as it is: to draw it takes a while."""
  return encoder.open_encoder(
    "random:x", mesh, read_config=lambda path: small_config()
  )


def setting(config, workdir, *, devices=2, opened=None, **changes):
  """Of a protocol's config with `changes`; by default of `untrained`."""
  mesh = mesh_of(devices)
  config.update({"num_workers": 0, **changes})
  return protocol.Setting(
    config=config,
    encoder=opened or untrained(mesh),
    workdir=str(workdir),
    mesh=mesh,
    processes=Processes(),
    tell=lambda line: None,
    console=io.StringIO(),
  )
