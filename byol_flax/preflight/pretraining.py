"""What preflight asks about a pre-training."""

from typing import Any, TextIO

from byol_flax.benchmarks import input_stages, photographs
from byol_flax.preflight import advice, apart, compiler, shallow, storage
from byol_flax.preflight.compiler import Compiled
from byol_flax.preflight.verdict import Subject
from byol_flax.pretrain import inputs, places
from byol_flax.pretrain.places import Place
from byol_flax.runs import data_sets
from byol_flax.slices import Slice
from input_pipeline import sources
from input_pipeline.errors import UsageError
from input_pipeline.resident import shape_of

_WHOLE = "without --fast the whole network is compiled"


def subject(
  config: Any, slice_: Slice, *, fast: bool, stream: TextIO
) -> Subject:
  """Measures the input, and returns what there is to be compiled.

  Args:
    config: as made by configs/byol.py.
    slice_: where the run would be.
    fast: whether to compile a shallow encoder and extrapolate.
    stream: is told how far a long compilation is.

  Raises:
    UsageError: the data set cannot be found, or not be used as the config asks.
  """
  source, measured_on = photographs.open_images(config)
  resident = resident_shape(config, slice_)
  whole = input_stages.one_core(source, config.augment, config.batch_size)[-1]

  def compiled(config: Any) -> list[Compiled]:
    return [
      compile_update(
        config, slice_, fast=fast, resident=resident, stream=stream
      )
    ]

  return Subject(
    config=config,
    title=f"{config.data.name}, batch {config.batch_size:,}"
    + (f" ({shallow.SAID}; {_WHOLE})" if fast else ""),
    compile=compiled,
    changes=advice.changes(config, slice_.devices),
    micro_batches=lambda config: config.accumulation_steps,
    images_per_core_second=whole.images_per_second,
    measured_on=measured_on,
    # If the images lie on the devices, one thread draws and no other works.
    input_cores=1 if resident else slice_.vcpus_per_host,
    # Images that lie on the devices are read once.
    files=None
    if resident
    else storage.files_of(
      config.data.name, source, data_sets.size_of(config)[0]
    ),
    left_out="",
    facts={"extrapolated": fast},
  )


def compile_update(
  config: Any,
  slice_: Slice,
  *,
  fast: bool,
  resident: tuple[int, ...] | None,
  stream: TextIO,
) -> Compiled:
  """Compiles an update, in a process of its own.

  Args:
    config: as made by configs/byol.py.
    slice_: where the run would be.
    fast: whether to compile a shallow encoder and extrapolate.
    resident: shape of the images that lie on the devices, if they do.
    stream: is told how far a long compilation is.

  Raises:
    UsageError: the data set cannot be found, or the config does not suit the
      slice.
    RunError: the compiler failed.
  """
  examples, classes = data_sets.size_of(config)
  compiled: Compiled = apart.compile_apart(
    shallow.extrapolate if fast else compiler.compile_step,
    config,
    slice_,
    num_examples=examples,
    num_classes=classes,
    resident=resident,
    stream=stream,
  )
  return compiled


def resident_shape(config: Any, slice_: Slice) -> tuple[int, ...] | None:
  """Shape of the images that would lie on the devices, by their headers.

  Args:
    config: as made by configs/byol.py.
    slice_: where the run would be.

  Returns:
    The shape, or None if the config keeps no images there.

  Raises:
    UsageError: the images are not on this machine, or too many.
  """
  if places.place_of(config.augment) is not Place.RESIDENT:
    return None
  source, _ = photographs.open_images(config)
  if isinstance(source, photographs.Photographs):
    raise UsageError(
      f"With augment.cache=device the images of {config.data.name} take "
      "memory of the devices, but they are not on this machine. Run preflight "
      "where they are, or with --config.augment.cache=none."
    )
  room = slice_.hbm_bytes
  readable = sources.ReadableSource(source)
  return shape_of(readable, lambda shape: inputs.check_room(shape, room))
