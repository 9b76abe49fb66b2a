"""An encoder to be evaluated, wherever it comes from.

All evaluations call `open_encoder`, which takes a checkpoint of a run or a
weight file, or draws random weights for a config. From a checkpoint it reads
the online encoder and the config beside it, and nothing else. So it needs
neither training data nor the optimizer, and works on any devices.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.evaluation import given_images
from byol_flax.models import byol, precision, resnet
from byol_flax.pretrain import train_state
from byol_flax.runs import address, checkpoint, digest, records
from byol_flax.runs.version import code_version
from byol_flax.weights import arrays, opening, own_runs, structure
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Foreign
from input_pipeline import augment
from input_pipeline.errors import RunError, UsageError

RANDOM = "random:"
# Who trained the encoder of a file that does not tell.
UNKNOWN = "another program"
# What a weight file leaves open is this config's.
_CONFIG_OF_FILES = os.path.join("configs", "byol.py")

# A config: as a config file makes it, or as the record of a run holds it.
Config = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Encoder:
  """A network that maps images to representations, and how it sees them.

  Attributes:
    module: images, uint8 [B, V, S, S, 3], to representations [B, V, F].
    variables: its "params" and "batch_stats", whole on every device.
    crop: the evaluation crop of its config, of S × S pixels.
    has_averages: whether BatchNorm has running averages; an encoder that was
      never trained gets them by `features.calibrate`.
    config: the config of pre-training that it was made with.
    provenance: a JSON object that tells it from every other encoder.
  """

  module: resnet.ResNet
  variables: Any
  crop: augment.EvalCrop
  has_averages: bool
  config: Config
  provenance: dict[str, Any]

  @property
  def representation(self) -> jax.ShapeDtypeStruct:
    """Shape [1, F] and type of the representation of an image."""
    images = jax.ShapeDtypeStruct((1, *[self.crop.size] * 2, 3), jnp.uint8)
    y: jax.ShapeDtypeStruct = jax.eval_shape(
      functools.partial(resnet.represent, self.module), self.variables, images
    )
    return y

  def __call__(self, images: Any) -> np.ndarray:
    """Representations, float32 [B, F], of images, uint8 [B, H, W, 3], RGB.

    The network was made for the S × S pixels that `preprocess` leaves; it takes
    other sizes, too. Each shape is compiled once. The devices share the batch,
    which is filled up for them where B cannot be divided; an image's
    representation does not depend on the others. All images of a call lie on
    the devices at once, so many of them are given in several calls.

    Raises:
      UsageError: a ValueError; `images` are of another type or shape.
    """
    found = given_images.batch(images)
    if not len(found):
      return np.zeros((0, self.representation.shape[1]), np.float32)
    mesh = jax.tree.leaves(self.variables)[0].sharding.mesh
    rows = given_images.rows_for(mesh, found)
    y = _represent(self.module, self.variables, rows)
    return np.asarray(y, np.float32)[: len(found)]

  def preprocess(self, images: Any) -> np.ndarray:
    """The evaluation's crop of an image, or of several of any sizes.

    It is the middle of the image, resized to S × S pixels: what `byol evaluate`
    shows to this encoder.

    Args:
      images: uint8 [H, W, 3], RGB, or a list or an array of such images.

    Returns:
      uint8 [S, S, 3] of one image, [B, S, S, 3] of several.

    Raises:
      UsageError: a ValueError; an image is of another type or shape.
    """
    return given_images.cropped(images, self.crop)


_represent = jax.jit(resnet.represent, static_argnums=0)


def open_encoder(
  where: str,
  mesh: Mesh,
  *,
  read_config: Callable[[str], Config] | None = None,
) -> Encoder:
  """Opens the encoder that `--encoder=where` names.

  Args:
    where: WORKDIR of a run, or WORKDIR@STEP for a checkpoint that is not the
      newest, or a weight file or its folder, or random:CONFIG; paths are
      absolute.
    mesh: where it will run.
    read_config: reads the CONFIG of random:CONFIG, and for a weight file the
      config of this project that it is completed by; runs do without.

  Raises:
    UsageError: there is no such run, checkpoint, file or config, or the file is
      refused.
    RunError: the checkpoint is damaged.
  """
  if where.startswith(RANDOM) and read_config:
    config = read_config(where.removeprefix(RANDOM))
    variables = untrained(config, mesh)
    return _describe(
      config,
      variables,
      mesh,
      has_averages=False,
      provenance={
        "encoder": where,
        "code_version": code_version(),
        "config_digest": _config_digest(config),
        "weights_digest": digest.tree_digest(variables),
      },
    )
  _refuse_unnamed(where)
  file = opening.file_of(where)
  if file and read_config:
    return _open_file(file, mesh, read_config)
  return _open_run(where, mesh)


def config_of(where: str, read_config: Callable[[str], Config]) -> Config:
  """The config of the encoder that `open_encoder` would open; reads no weights.

  Arguments and errors are those of `open_encoder`.
  """
  if where.startswith(RANDOM):
    return read_config(where.removeprefix(RANDOM))
  _refuse_unnamed(where)
  if file := opening.file_of(where):
    return _config_of_file(opening.open_weights(file), read_config)
  named = address.Address.parse(where)
  step, _ = named.find("--encoder")
  checkpoints = checkpoint.Checkpoints.reader(named.workdir)
  try:
    config: Config = records.completed(checkpoints.record(step))["config"]
    return config
  except checkpoint.DamagedError as error:
    raise RunError(f"--encoder={where}: {error}") from None
  finally:
    checkpoints.close()


def without_weights(config: Config, mesh: Mesh) -> Encoder:
  """The encoder of `config` as a program sees it: shapes for variables."""
  whole = sharding.replicated(mesh)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
    jax.eval_shape(_initialiser(config, mesh)),
  )
  return _describe(config, shapes, mesh, has_averages=True, provenance={})


def _refuse_unnamed(where: str) -> None:
  if where == "random" or where.startswith(RANDOM):
    raise UsageError(
      f"--encoder={where} does not tell which network is meant; expected "
      "random:CONFIG, such as random:configs/byol_r50x1.py."
    )


def untrained(config: Config, mesh: Mesh) -> Any:
  """Variables of the online encoder with which a run of `config` begins."""
  init = _initialiser(config, mesh)
  return jax.jit(init, out_shardings=sharding.replicated(mesh))()


def plain_config(config: Config) -> dict[str, Any]:
  """The config as dictionaries: that of a run is plain, a read one is not."""
  given: Any = config
  plain: dict[str, Any] = (
    given.to_dict() if hasattr(given, "to_dict") else dict(given)
  )
  return plain


def _config_digest(config: Config) -> str:
  """Tells random encoders of two configs apart, on whatever devices."""
  plain = plain_config(config)
  drawn = [plain["model"], plain["dtype"], plain["seed"]]
  shown = [plain["augment"]["size"], plain["evaluation"]["crop_ratio"]]
  text = json.dumps([*drawn, *shown], sort_keys=True)
  return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _initialiser(config: Config, mesh: Mesh) -> Callable[[], Any]:
  types = precision.types_of(config["dtype"], mesh.devices.flat[0].platform)
  network = byol.make_network(**config["model"], num_classes=0, **types)

  def init() -> Any:
    variables = train_state.init_variables(
      network, 0, seed=config["seed"], image_size=config["augment"]["size"]
    )
    return {name: tree["encoder"] for name, tree in variables.items()}

  return init


def _open_file(
  file: str, mesh: Mesh, read_config: Callable[[str], Config]
) -> Encoder:
  """The online encoder of a weight file."""
  found = opening.open_weights(file)
  config = _config_of_file(found, read_config)
  types = precision.types_of(config["dtype"], mesh.devices.flat[0].platform)

  def put(array: np.ndarray) -> jax.Array:
    floats = array.dtype.kind == "f"
    dtype = types["param_dtype"] if floats else array.dtype
    return sharding.put_everywhere(mesh, array.astype(dtype, copy=False))

  try:
    variables = arrays.read(found.encoder, put)
  except WeightsError as error:
    raise WeightsError(f"--encoder={file}: {error}") from None
  return _describe(
    config,
    variables,
    mesh,
    has_averages=True,
    provenance={
      "encoder": file,
      "sha256": opening.sha256(file),
      "format": found.format,
      "step": found.step,
      "code_version": code_version(),
      "digest": digest.tree_digest(variables),
      "trained_by": found.details.get("trained_by", UNKNOWN),
      "image_size": found.image_size,
      "crop_ratio": found.crop_ratio,
    },
    trained_on=found.details.get("trained_on"),
  )


def _config_of_file(
  found: Foreign, read_config: Callable[[str], Config]
) -> Config:
  """A config of pre-training with the network that a file holds.

  It is plain, as that of a run, because evaluations that train record it.
  """
  config = plain_config(read_config(_CONFIG_OF_FILES))
  return {
    **config,
    "model": structure.completed(found.model, config["model"]),
    "augment": {**config["augment"], "size": found.image_size},
    "evaluation": {**config["evaluation"], "crop_ratio": found.crop_ratio},
  }


def _open_run(where: str, mesh: Mesh) -> Encoder:
  """The online encoder of a checkpoint."""
  named = address.Address.parse(where)
  step, steps = named.find("--encoder")
  checkpoints = checkpoint.Checkpoints.reader(named.workdir)
  try:
    record = records.completed(checkpoints.record(step))
    shapes = own_runs.encoder_of(checkpoints.shapes(step))
    whole = sharding.replicated(mesh)
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes
    )
    read = checkpoints.restore_part(step, abstract)
  except checkpoint.DamagedError as error:
    raise RunError(
      f"--encoder={where}: {error} {address.others(step, steps)}"
    ) from None
  finally:
    checkpoints.close()
  network = read.get("online", read)
  variables = {name: network[name]["encoder"] for name in own_runs.COLLECTIONS}
  _check_finite(variables, f"--encoder={where}")
  return _describe(
    record["config"],
    variables,
    mesh,
    has_averages=True,
    provenance={
      "encoder": f"{named.workdir}@{step}",
      "step": step,
      "training_seconds": round(record["seconds"], 1),
      "init": record["init"],
      "code_version": record["code_version"],
      "digest": record["digest"],
      "trained_by": own_runs.trained_by(record["config"], "online" in read),
    },
    trained_on=record["config"]["data"],
  )


def _describe(
  config: Config,
  variables: Any,
  mesh: Mesh,
  *,
  has_averages: bool,
  provenance: dict[str, Any],
  trained_on: Mapping[str, Any] | None = None,
) -> Encoder:
  """Makes an `Encoder` from its variables and what its config says."""
  types = precision.types_of(config["dtype"], mesh.devices.flat[0].platform)
  model = config["model"]
  norm = resnet.make_norm(**model["batch_norm"], **types)
  return Encoder(
    module=byol.make_encoder(
      **model["encoder"],
      initializer=model["initializer"],
      input_scaling=model["input_scaling"],
      norm=norm,
      **types,
    ),
    variables=variables,
    crop=augment.EvalCrop(
      size=config["augment"]["size"], ratio=config["evaluation"]["crop_ratio"]
    ),
    has_averages=has_averages,
    config=config,
    provenance={
      **provenance,
      "architecture": dict(model["encoder"]),
      "trained_on": trained_on,
    },
  )


def _check_finite(variables: Any, name: str) -> None:
  """Raises RunError if a weight or a statistic is NaN or infinite."""

  @jax.jit
  def finite(tree: Any) -> jax.Array:
    return jnp.all(
      jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)])
    )

  if not finite(variables):
    raise RunError(f"{name}: the encoder has weights that are not finite.")
