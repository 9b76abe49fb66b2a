"""The weights that a new run takes from a weight file."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.pretrain import origin
from byol_flax.runs import records
from byol_flax.weights import arrays, opening
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Foreign
from input_pipeline.errors import UsageError


def open_file(begins_with: origin.Origin, mesh: Mesh) -> origin.Weights:
  """Finds the weights in the file that `begins_with` names; reads no array yet.

  Every process reads the whole file, so each host must have it.

  Raises:
    UsageError: the file is refused, or has not all that is to be taken.
  """
  path = begins_with.where
  try:
    found = opening.open_weights(path)
  except WeightsError as error:
    raise UsageError(f"{begins_with.flag}={error}") from None
  if begins_with.takes != origin.ENCODER and "target" not in found.networks:
    raise UsageError(
      f"{begins_with}: that file holds no target network; --init-encoder takes "
      "its encoder alone."
    )
  if begins_with.takes == origin.EVERYTHING and (
    found.momentum is None or found.step is None
  ):
    raise UsageError(
      f"{begins_with}: that file has no momentum or does not tell its step; "
      "--init takes its networks, and begins both anew."
    )

  def put(array: np.ndarray) -> jax.Array:
    how = sharding.cut(mesh, array.shape)
    return jax.make_array_from_callback(
      array.shape, how, lambda index: array[index]
    )

  def read() -> origin.Taken:
    try:
      networks = {
        name: arrays.read(network, put)
        for name, network in found.networks.items()
      }
      momentum = found.momentum and arrays.read(found.momentum, put)
    except WeightsError as error:
      raise UsageError(f"{begins_with}: {error}") from None
    return origin.Taken(networks, momentum)

  at = "" if found.step is None else f" after update {found.step:,}"
  return origin.Weights(
    shapes=found.networks,
    has_momentum=found.momentum is not None,
    step=found.step,
    model=found.model,
    config=_config_of(found),
    what=f"{path} ({found.format}){at}",
    read=read,
    record={
      "workdir": path,
      "step": None,
      "encoder_only": begins_with.takes == origin.ENCODER,
      "takes": begins_with.takes,
      "code_version": None,
      "digest": opening.sha256(path),
    },
  )


def _config_of(found: Foreign) -> Mapping[str, Any] | None:
  """The config of the run that a file was exported from, if it tells."""
  try:
    config: Mapping[str, Any] = records.completed(found.details)["config"]
  except (KeyError, TypeError, AttributeError, ValueError):
    return None
  return config
