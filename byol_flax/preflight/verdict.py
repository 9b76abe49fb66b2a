"""Tells what to expect of a run on a slice, before anybody pays for it."""

import dataclasses
from collections.abc import Callable
from typing import Any, TextIO

from byol_flax import slices
from byol_flax.benchmarks import input_stages, photographs
from byol_flax.preflight import advice, apart, compiler, estimate, shallow
from byol_flax.preflight.compiler import Compiled
from byol_flax.pretrain import inputs, places
from byol_flax.pretrain.places import Place
from byol_flax.runs import data_sets
from byol_flax.runs.out_files import check_writable, write_json
from byol_flax.runs.version import code_version
from byol_flax.slices import Slice
from input_pipeline import sources
from input_pipeline.errors import UsageError
from input_pipeline.resident import shape_of

FITS, DOES_NOT_FIT = 0, 3  # exit codes


@dataclasses.dataclass(frozen=True)
class _Question:
  """What is asked, and where the answer goes.

  Attributes:
    slice_: where the run would be.
    price: of a device and hour, or None.
    images_per_core_second: images that a core of this machine augments in a
      second.
    measured_on: which images those were.
    stream: console.
  """

  slice_: Slice
  price: float | None
  images_per_core_second: float
  measured_on: str
  stream: TextIO

  def say(self, line: str) -> None:
    """Writes a line at once."""
    self.stream.write(line + "\n")
    self.stream.flush()

  def answer(self, result: Compiled, config: Any) -> dict[str, Any]:
    """Tells what a compiled step means, and returns it for the JSON file."""
    found = None
    if result.fits:
      found = estimate.estimate(
        result,
        self.slice_,
        accumulation_steps=config.accumulation_steps,
        images_per_core_second=self.images_per_core_second,
        # If the images lie on the devices, one thread draws and no other works.
        input_cores=1
        if places.place_of(config.augment) is Place.RESIDENT
        else self.slice_.vcpus_per_host,
        price_per_device_hour=self.price,
      )
      lines = estimate.words(
        result, found, self.slice_, input_measured=self.measured_on
      )
    else:
      lines = ["memory     " + estimate.memory_words(result, self.slice_)]
    for line in lines:
      self.say(line)
    return estimate.record(result, found, self.slice_)


def preflight(
  config: Any,
  slice_name: str,
  *,
  price: float | None,
  fast: bool,
  out: str,
  stream: TextIO,
) -> int:
  """Says whether a run fits a slice, how fast it is, what it costs.

  If it does not fit, this says what to change.

  Args:
    config: as made by configs/byol.py.
    slice_name: such as "v3-512".
    price: of a device and hour, in any currency; None leaves the cost out.
    fast: whether to compile a shallow encoder and extrapolate.
    out: JSON file to write.
    stream: console.

  Returns:
    FITS or DOES_NOT_FIT, the exit code.

  Raises:
    UsageError: for all that a user can mend.
  """
  compiler.check_installed()
  slice_ = slices.find(slice_name)
  check_writable(out)
  examples, classes = data_sets.size_of(config)
  source, measured_on = photographs.open_images(config)
  resident = None
  if places.place_of(config.augment) is Place.RESIDENT:
    resident = _resident_shape(config.data.name, source, slice_)
  rate = input_stages.one_core(source, config.augment, config.batch_size)[
    -1
  ].images_per_second
  question = _Question(slice_, price, rate, measured_on, stream)
  question.say(
    f"{config.data.name}, batch {config.batch_size:,}, on {slice_.name}: "
    f"{slice_.devices} device(s) of {slice_.hosts} host(s)"
    + (f"; {shallow.SAID}" if fast else "")
  )

  def compiled(config: Any) -> Compiled:
    return apart.compile_apart(
      shallow.extrapolate if fast else compiler.compile_step,
      config,
      slice_,
      num_examples=examples,
      num_classes=classes,
      resident=resident,
      stream=stream,
    )

  first = compiled(config)
  answer = question.answer(first, config)
  if first.fits:
    advised = _advise_smaller(question, first, config)
  else:
    advised = _advise_change(question, config, compiled)
  record = {
    "config": config.to_dict(),
    "code_version": code_version(),
    "extrapolated": fast,
    **answer,
    "advice": advised,
  }
  write_json(out, record)
  question.say(f"Written to {out}")
  return FITS if first.fits else DOES_NOT_FIT


def _resident_shape(
  name: str, source: sources.Source, slice_: Slice
) -> tuple[int, ...]:
  """Shape of the images that would lie on the devices, by their headers."""
  if isinstance(source, photographs.Photographs):
    raise UsageError(
      f"With augment.cache=device the images of {name} take memory of the "
      "devices, but they are not on this machine. Run preflight where they "
      "are, or with --config.augment.cache=none."
    )
  room = slice_.hbm_bytes
  readable = sources.ReadableSource(source)
  return shape_of(readable, lambda shape: inputs.check_room(shape, room))


def _advise_smaller(
  question: _Question, result: Compiled, config: Any
) -> dict[str, Any] | None:
  """Names a smaller slice where most of the memory stays free."""
  found = advice.smaller_slice(
    result,
    question.slice_,
    batch_size=config.batch_size,
    accumulation_steps=config.accumulation_steps,
  )
  if not found:
    return None
  other, times = found
  question.say(
    f"advice     {other.name} should do too, in up to {times:g} times as long "
    "(predicted from the memory, not compiled)"
  )
  return {"slice": other.name, "times_longer": times, "compiled": False}


def _advise_change(
  question: _Question, config: Any, compiled: Callable[[Any], Compiled]
) -> dict[str, Any] | None:
  """Finds the smallest change that fits, by compiling it."""

  def attempt(change: advice.Change) -> Compiled:
    question.say(f"trying     {change.flags}")
    found = compiled(change.config)
    words = estimate.memory_words(found, question.slice_)
    question.say(f"           {words}")
    return found

  slice_ = question.slice_
  candidates = advice.changes(config, slice_.devices)
  found = advice.smallest_that_fits(candidates, attempt, slice_)
  if not found:
    larger = slices.larger(slice_)
    other = f", such as {larger[0].name}" if larger else " of another kind"
    question.say(f"advice     no setting fits; take a larger slice{other}")
    return None
  change, fitting = found
  question.say(f"advice     {change.flags}")
  answer = question.answer(fitting, change.config)
  return {"flags": change.flags, "compiled": True, **answer}
