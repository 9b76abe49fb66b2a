"""What every protocol of evaluation is given, and how it opens its data."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import jax
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.evaluation import features, held_out, place, unread
from byol_flax.evaluation.encoder import Encoder
from byol_flax.runs import data_sets
from byol_flax.runs.distributed import Processes
from byol_flax.runs.progress_line import human_duration
from byol_flax.runs.version import code_version
from input_pipeline import (
  labels,
  paths,
  pipeline,
  sources,
)
from input_pipeline.errors import UsageError

_SECONDS_BETWEEN_LINES = 10
_THREADS = 2  # in each worker, if the images are not in a bucket


def data_of(
  config: Any, of_encoder: Mapping[str, Any]
) -> tuple[str, str | None]:
  """Name and folder of the data set that an evaluation reads.

  Args:
    config: of the evaluation. What it leaves open is the encoder's own.
    of_encoder: the config that the encoder was made with.
  """
  name, folder = config.data_name, config.data_dir
  if not name:
    name = paths.of_data_set(of_encoder["data"]["name"])
  if folder is None:
    folder = of_encoder["loader"]["data_dir"]
  return name, folder and paths.absolute(folder)


@dataclasses.dataclass(frozen=True)
class Setting:
  """One evaluation of an encoder by the protocol of a config.

  Attributes:
    config: names the protocol and sets all that it leaves open.
    encoder: what is evaluated.
    workdir: where the evaluation keeps what it needs to go on after a kill.
    mesh: where it runs.
    processes: all that take part.
    tell: is given the lines of the result.
    console: where progress is shown.
    missing: what could not be read so far.
  """

  config: Any
  encoder: Encoder
  workdir: str
  mesh: Mesh
  processes: Processes
  tell: Callable[[str], None]
  console: TextIO
  missing: unread.Unread = dataclasses.field(default_factory=unread.Unread)

  @property
  def num_threads(self) -> int:
    """How many threads read in each worker."""
    name, folder = data_of(self.config, self.encoder.config)
    return self.config.num_threads or data_sets.threads_for(
      name, folder, local=_THREADS
    )

  @property
  def maker(self) -> dict[str, str]:
    """What computes here: the code and the devices."""
    return {
      "code_version": code_version(),
      "devices": sharding.describe(self.mesh),
    }

  def open_source(self, name: str) -> sources.Source:
    """Opens the split that a key of the config names, labelled or not.

    If the config names no data set, the split is one of the set that the
    encoder was trained on.

    Raises:
      UsageError: it cannot be opened, or has other images than the evaluation
        began with.
    """
    name_of_set, folder = data_of(self.config, self.encoder.config)
    source = held_out.open_split(
      name_of_set,
      self.config[name],
      folder,
      unread.began_with(self.workdir, name),
    )
    self.claim(name, source)
    return source

  def claim(self, name: str, source: sources.Source) -> None:
    """Makes a split, opened as a key of the config names it, this evaluation's.

    Raises:
      UsageError: the evaluation began with other images.
    """
    place.claim_images(self.workdir, name, source, self.processes)
    self.missing.opened(name, source)

  def missed(self, split: sources.Source, numbers: Sequence[int]) -> None:
    """Takes what this process could not read of a split; all call this.

    Raises:
      UsageError: too much is missing of a split that the config names.
    """
    if new := self.missing.add(split, self.processes.union(numbers)):
      self.tell(
        f"{len(new):,} image(s) of {split.split} could not be read and are "
        f"left out: {unread.named(split, new)}"
      )
    if jax.process_index() == 0:
      self.missing.list_in(self.workdir)
    self.missing.check(self.workdir, self.config.max_unreadable_share)

  def open_split(self, name: str) -> sources.Source:
    """Opens a split as `open_source` does, whose images have a class each.

    Raises:
      UsageError: it cannot be opened, or has no labels.
    """
    source = self.open_source(name)
    if not source.num_classes:
      raise UsageError(
        f"{source.name} has no labels to evaluate with; name a labelled set, "
        "such as --config.data_name=folder:DIR with one sub-folder per class."
      )
    if some := labels.check_labelled(source, f"{name}={source.split}"):
      self.tell(some)
    return source

  def check_splits(self, *splits: sources.Source | None) -> None:
    """Raises UsageError if splits differ in classes, or share images.

    Images under different names may still be equal; this does not find them.
    """
    given = [split for split in splits if split]
    for split in given[1:]:
      if split.class_names != given[0].class_names:
        raise UsageError(
          f"{given[0].split} has {given[0].num_classes} classes and "
          f"{split.split} has {split.num_classes}, or their names differ; "
          "expected splits of the same classes."
        )
    for one, other in itertools.combinations(given, 2):
      if shared := sources.shared_examples(one, other):
        raise UsageError(
          f"{one.split} and {other.split} of {one.name} share {shared:,} "
          "images; expected parts that have no image in common."
        )

  def describe(self, *splits: sources.Source | None) -> list[dict[str, Any]]:
    """What a result says about its data."""
    return [
      {
        "name": split.name,
        "split": split.split,
        "examples": len(split),
        "unreadable": self.missing.count(split),
        "classes": split.num_classes,
        "fingerprint": split.fingerprint,
        "held_out": sources.how_held_out(split),
      }
      for split in splits
      if split
    ]

  def progress(self, batches: int, batch_size: int) -> Callable[[], None]:
    """Returns what to call before each of so many batches.

    It tells on the console how many are done, and raises PreemptedError after a
    preemption; see `part_done` of `features.open_splits`.
    """
    began = told = time.monotonic()
    done = 0

    def part_done() -> None:
      nonlocal done, told
      self.processes.part_done()
      now = time.monotonic()
      if done and now - told > _SECONDS_BETWEEN_LINES:
        told = now
        rate = done * batch_size / (now - began)
        left = human_duration((batches - done) * batch_size / rate)
        self.console.write(
          f"batch {done:,}/{batches:,} | {rate:,.0f} images/s | ETA {left}\n"
        )
        self.console.flush()
      done += 1

    return part_done

  def make_reader(self) -> pipeline.EvalReader:
    """How images are read for features: with the encoder's own crop."""
    return features.make_reader(
      self.encoder.crop,
      self.mesh,
      batch_size=self.config.batch_size,
      num_workers=self.config.num_workers,
      num_threads=self.num_threads,
    )
