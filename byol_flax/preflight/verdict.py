"""Tells what to expect of a run on a slice, before anybody pays for it."""

import dataclasses
from collections.abc import Callable
from typing import Any, TextIO

from byol_flax.preflight import advice, estimate, storage
from byol_flax.preflight.compiler import Compiled
from byol_flax.runs.out_files import write_json
from byol_flax.runs.version import code_version
from byol_flax.slices import Slice

FITS, DOES_NOT_FIT = 0, 3  # exit codes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
  """A run that is asked about: a pre-training or an evaluation.

  Attributes:
    config: of the run.
    title: says what it does, such as "imagenet2012, batch 4,096".
    compile: config, perhaps a changed one -> its programs. After one that does
      not fit there need not be others.
    changes: changes of the config that take less memory, the smallest first.
    micro_batches: config -> in how many parts a batch is handled.
    images_per_core_second: images that a core of this machine prepares in a
      second.
    measured_on: which images those were.
    input_cores: how many cores of a host prepare images.
    files: of the images, if the run reads them again and again.
    left_out: a line that says what the hours do not hold; "" for none.
    facts: what else goes to the JSON file.
  """

  config: Any
  title: str
  compile: Callable[[Any], list[Compiled]]
  changes: list[advice.Change]
  micro_batches: Callable[[Any], int]
  images_per_core_second: float
  measured_on: str
  input_cores: int
  files: storage.Files | None
  left_out: str
  facts: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Question:
  """What is asked, and where the answer goes.

  Attributes:
    subject: what the run is.
    slice_: where it would be.
    price: of a device and hour, or None.
    stream: console.
  """

  subject: Subject
  slice_: Slice
  price: float | None
  stream: TextIO

  def say(self, line: str) -> None:
    """Writes a line at once."""
    self.stream.write(line + "\n")
    self.stream.flush()

  def answer(self, programs: list[Compiled], config: Any) -> dict[str, Any]:
    """Tells what compiled programs mean, and returns it for the JSON file."""
    subject, found, needs = self.subject, None, None
    if _fit(programs):
      found = estimate.estimate(
        programs,
        self.slice_,
        accumulation_steps=subject.micro_batches(config),
        images_per_core_second=subject.images_per_core_second,
        input_cores=subject.input_cores,
        price_per_device_hour=self.price,
      )
      lines = estimate.words(
        programs, found, self.slice_, input_measured=subject.measured_on
      )
      if subject.files:
        update = estimate.longest(programs)
        needs = storage.needs(
          subject.files,
          self.slice_,
          found.images_per_host_second,
          update.total_steps * update.batch_size,
        )
        lines += storage.words(subject.files, needs, self.slice_)
      if subject.left_out:
        lines.append(f"left out   {subject.left_out}")
    else:
      lines = [f"memory     {self.memory(programs)}"]
    for line in lines:
      self.say(line)
    record = estimate.record(programs, found, self.slice_)
    return {**record, **storage.record(needs)}

  def memory(self, programs: list[Compiled]) -> str:
    """The verdict on the program that takes most."""
    most = estimate.largest(programs)
    words = estimate.memory_words(most, self.slice_)
    return words if most.name == "update" else f"{most.name} {words}"


def _fit(programs: list[Compiled]) -> bool:
  return all(one.fits for one in programs)


def preflight(
  subject: Subject,
  slice_: Slice,
  *,
  price: float | None,
  out: str,
  stream: TextIO,
) -> int:
  """Says whether a run fits a slice, how fast it is, what it costs.

  If it does not fit, this says what to change.

  Args:
    subject: the run.
    slice_: where it would be.
    price: of a device and hour, in any currency; None leaves the cost out.
    out: JSON file to write.
    stream: console.

  Returns:
    FITS or DOES_NOT_FIT, the exit code.

  Raises:
    UsageError: for all that a user can mend.
  """
  question = _Question(subject, slice_, price, stream)
  question.say(
    f"{subject.title}, on {slice_.name}: {slice_.devices} device(s) of "
    f"{slice_.hosts} host(s)"
  )
  first = subject.compile(subject.config)
  answer = question.answer(first, subject.config)
  fits = _fit(first)
  advised = (
    _advise_smaller(question, first)
    if fits
    else _advise_change(question, first)
  )
  record = {
    "config": subject.config.to_dict(),
    "code_version": code_version(),
    **subject.facts,
    **answer,
    "advice": advised,
  }
  write_json(out, record)
  question.say(f"Written to {out}")
  return FITS if fits else DOES_NOT_FIT


def _advise_smaller(
  question: _Question, programs: list[Compiled]
) -> dict[str, Any] | None:
  """Names a smaller slice where most of the memory stays free."""
  config = question.subject.config
  found = advice.smaller_slice(
    estimate.largest(programs),
    question.slice_,
    micro_batch=config.batch_size // question.subject.micro_batches(config),
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
  question: _Question, programs: list[Compiled]
) -> dict[str, Any] | None:
  """Finds the smallest change that fits, by compiling it."""
  tried: dict[str, list[Compiled]] = {}

  def attempt(change: advice.Change) -> Compiled:
    question.say(f"trying     {change.flags}")
    tried[change.flags] = question.subject.compile(change.config)
    question.say(f"           {question.memory(tried[change.flags])}")
    return estimate.largest(tried[change.flags])

  slice_ = question.slice_
  found = advice.smallest_that_fits(question.subject.changes, attempt, slice_)
  if not found:
    larger = advice.larger_slice(estimate.largest(programs), slice_)
    other = f", such as {larger.name}" if larger else " of another kind"
    question.say(f"advice     no setting fits; take a larger slice{other}")
    return None
  change, _ = found
  effect = f"; {change.effect}" if change.effect else ""
  question.say(f"advice     {change.flags}{effect}")
  answer = question.answer(tried[change.flags], change.config)
  return {"flags": change.flags, "compiled": True, **answer}
