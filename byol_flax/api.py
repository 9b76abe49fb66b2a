"""What programs and notebooks import from `byol_flax`."""

import os

import jax

from byol_flax import sharding
from byol_flax.commands import libraries
from byol_flax.commands.evaluate import read_run_config
from byol_flax.evaluation import encoder as encoders
from byol_flax.evaluation.encoder import Encoder as Encoder
from byol_flax.runs import devices
from input_pipeline import paths


def load_encoder(where: str | os.PathLike[str]) -> Encoder:
  """Opens an encoder on all devices of this process.

  Args:
    where: what `byol evaluate --encoder` takes: WORKDIR of a run, WORKDIR@STEP
      for a checkpoint that is not the newest, or random:CONFIG for an encoder
      that was never trained. Paths may be relative.

  Returns:
    A function of images, uint8 [B, H, W, 3], to representations, float32 [B, F]
    as NumPy arrays. It has `preprocess`, `variables`, `config` and
    `provenance`. An encoder that was never trained has no BatchNorm statistics;
    `byol features` gives it some, of the images that it reads first.

  Raises:
    UsageError: a ValueError; there is no such run, checkpoint or config, or JAX
      cannot use the devices.
    RunError: a RuntimeError; the checkpoint is damaged.
  """
  with libraries.quiet():
    devices.open_devices()
    return encoders.open_encoder(
      paths.of_encoder(os.fspath(where)),
      sharding.make_mesh(jax.local_devices()),
      read_config=read_run_config,
    )
