"""What preflight asks about an evaluation."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import jax

from byol_flax import sharding, trees
from byol_flax.benchmarks import input_stages, photographs
from byol_flax.evaluation import encoder as encoder_lib
from byol_flax.evaluation import held_out, linear, protocol
from byol_flax.preflight import advice, apart, compiler, dense_data
from byol_flax.preflight.compiler import Compiled
from byol_flax.preflight.jobs import Count, Data, Job, Program
from byol_flax.preflight.protocols import PROTOCOLS
from byol_flax.preflight.verdict import Subject
from byol_flax.slices import Slice
from input_pipeline import augment, sources
from input_pipeline.errors import UsageError

_SPLITS = ("train_split", "valid_split", "test_split")
_LEFT_OUT = (
  "start and compilation, checkpoints, images on their way to the devices"
)
_CALIBRATION = "BatchNorm's averages of an encoder that was never trained"


def subject(
  config: Any,
  where: str | None,
  slice_: Slice,
  *,
  read_config: Callable[[str], encoder_lib.Config],
  stream: TextIO,
) -> Subject:
  """Measures the input, and returns what there is to be compiled.

  Args:
    config: of the evaluation.
    where: --encoder, of which only the config is read.
    slice_: where the evaluation would be.
    read_config: as in `encoder.open_encoder`.
    stream: is told how far a long compilation is.

  Raises:
    UsageError: the encoder or the data set cannot be found.
    RunError: the encoder's checkpoint is damaged.
  """
  if where is None:
    raise UsageError(
      "Preflight of an evaluation needs the encoder that is evaluated: "
      "--encoder=WORKDIR of a run, or --encoder=random:CONFIG, such as "
      "random:configs/byol_r50x1.py."
    )
  known = PROTOCOLS[config.protocol]
  of_encoder = encoder_lib.config_of(where, read_config)
  name, folder = protocol.data_of(config, of_encoder)
  if config.protocol in dense_data.TASKS:
    data = dense_data.look(config, name, folder)
  else:
    data = _look(config, name, folder, of_encoder)

  def compiled(config: Any) -> list[Compiled]:
    return apart.compile_apart(
      compile_programs,
      config,
      slice_,
      of_encoder=of_encoder,
      counts=data.counts,
      num_classes=data.num_classes,
      stream=stream,
    )

  untrained = where.startswith(encoder_lib.RANDOM)
  left_out = [
    _LEFT_OUT,
    _CALIBRATION if untrained and config.protocol != "supervised" else "",
    known.left_out,
  ]
  changes = (
    [] if known.trains else advice.smaller_batches(config, slice_.devices)
  )
  return Subject(
    config=config,
    title=f"{config.protocol} of {where} on {data.name}, batch "
    f"{config.batch_size:,}",
    compile=compiled,
    changes=changes,
    micro_batches=lambda config: 1,
    images_per_core_second=min(
      input_stages.one_core_rate(data.source, prepare)
      for prepare in data.transforms
    ),
    measured_on=data.measured_on,
    input_cores=slice_.vcpus_per_host,
    files=None,  # which an evaluation reads a few times
    left_out=", ".join(filter(None, left_out)),
    facts={"encoder": where, "extrapolated": False},
  )


def _look(
  config: Any, name: str, folder: str | None, of_encoder: Mapping[str, Any]
) -> Data:
  """Looks at images with classes; if they are absent, synthetic ones do.

  Raises:
    UsageError: see `count_images`.
  """
  counts, num_classes = count_images(config, name, folder)
  source, measured_on = photographs.or_synthetic(
    name, lambda: held_out.open_split(name, config.train_split, folder)
  )
  return Data(
    name=name,
    counts=counts,
    num_classes=num_classes,
    source=source,
    transforms=_readings(config, of_encoder),
    measured_on=measured_on,
  )


def count_images(
  config: Any, name: str, folder: str | None
) -> tuple[dict[str, Count], int]:
  """Images of each split that a config names, and the number of classes.

  Raises:
    UsageError: they are neither known nor at hand, or have no labels.
  """
  sizes = {
    key: held_out.size_of(name, config[key], folder)
    for key in _SPLITS
    if config.get(key)
  }
  num_classes = sizes["train_split"][1]
  if not num_classes:
    example = held_out.open_split(name, config.train_split, folder)[0]
    if "classes" not in example:
      raise UsageError(f"{name} has no labels to evaluate with.")
    num_classes = len(example["classes"])
  images = {key: size for key, (size, _) in sizes.items()}
  if config.get("subset_data"):
    images["subset_data"], _ = sources.size_of(
      config.subset_data, "train", folder
    )
  if config.get("valid_per_class"):  # as `three_splits` holds them out
    per_class = config.valid_per_class * num_classes
    held = per_class if per_class > 0 else images["test_split"]
    images["valid_split"] = held
    images["train_split"] -= held
  return {
    key: Count(config[key], size) for key, size in images.items()
  }, num_classes


def _readings(
  config: Any, of_encoder: Mapping[str, Any]
) -> list[input_stages.Drawn | augment.EvalCrop]:
  """What is done with the images of the training split."""
  if not PROTOCOLS[config.protocol].trains:
    return [
      augment.EvalCrop(
        size=of_encoder["augment"]["size"],
        ratio=of_encoder["evaluation"]["crop_ratio"],
      )
    ]
  names = config.augmentations if "augmentations" in config else ["crop_flip"]
  return [linear.transform(name, of_encoder) for name in names]


def compile_programs(
  config: Any,
  slice_: Slice,
  *,
  of_encoder: encoder_lib.Config,
  counts: Mapping[str, Count],
  num_classes: int,
  tell: Callable[[str], None],
) -> list[Compiled]:
  """Compiles the programs of an evaluation, up to one that does not fit.

  Args:
    config: of the evaluation.
    slice_: where it would run.
    of_encoder: the config that the encoder was made with.
    counts: see `jobs.Job`.
    num_classes: K.
    tell: is given the name of each phase as it begins.

  Raises:
    UsageError: the config does not suit the slice or the data.
  """
  mesh = sharding.make_mesh(compiler.devices_of(slice_))
  encoder = encoder_lib.without_weights(of_encoder, mesh)
  job = Job(config, encoder, mesh, counts, num_classes)
  found: list[Compiled] = []
  for program in PROTOCOLS[config.protocol].programs(job):
    found.append(_compile(program, job, slice_, tell))
    if not found[-1].fits:
      break
  return found


def _compile(
  program: Program, job: Job, slice_: Slice, tell: Callable[[str], None]
) -> Compiled:
  return compiler.compile_program(
    lambda: program.function.lower(*program.arguments, **program.static),
    slice_,
    loops=program.loops,
    tell=lambda phase: tell(f"{phase} {program.name}"),
    name=program.name,
    parameters=trees.count(job.encoder.variables["params"]),
    batch_size=job.config.batch_size,
    beside_bytes=sum(
      x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape))
      for x in jax.tree.leaves(program.beside)
    ),
    total_steps=program.calls,
  )
