"""The programs of segmentation, detection and depth; see `protocols`."""

import dataclasses
import io
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp

from byol_flax.evaluation import (
  dense,
  depth_network,
  detector,
  features,
  segmenter,
  splits,
)
from byol_flax.evaluation.protocol import Setting
from byol_flax.preflight.jobs import Job, Program
from byol_flax.runs.distributed import Processes
from input_pipeline import bucketed, dense_depth, pipeline
from input_pipeline.dense_boxes import EvalBoxes


class Network(Protocol):
  """What all trainings of a dense protocol share."""

  @property
  def create(self) -> Callable[[int], dense.DenseState]:
    """See `dense.make_creator`."""


_Network = TypeVar("_Network", bound=Network)


def segmentation(job: Job) -> list[Program]:
  """Trainings of an FCN, and the counts of its confusions."""
  config = job.config
  network, state = _made(
    job, lambda setting: segmenter.Segmenter.of(setting, job.num_classes)
  )
  square = config.batch_size, config.crop_size, config.crop_size
  rates = len(config.learning_rates) if config.held_out else 0
  tests = len(config.seeds)
  test: Any = job.counts["test_split"]
  return _programs(
    job,
    state,
    update=network.update,
    batch={
      "image": job.cut(jnp.uint8, *square, 3),
      "classes": job.cut(jnp.uint8, *square),
    },
    look=network.count,
    transform=segmenter.canvas(config, test),
    trainings=rates + tests,
    looks=rates * _looks(job, config.held_out) + tests * _looks(job, len(test)),
  )


def detection(job: Job) -> list[Program]:
  """Trainings of a Faster R-CNN on its largest canvas, and its detections."""
  config = job.config
  network, state = _made(
    job, lambda setting: detector.Detector.of(setting, job.num_classes)
  )
  batches = detector.make_batches(config, config.max_boxes, seed=0)
  canvas = batches.canvas(max(config.short_edges), portrait=False)
  rows, boxes = config.batch_size, config.max_boxes
  return _programs(
    job,
    state,
    update=network.update,
    batch={
      "image": job.cut(jnp.uint8, rows, canvas.height, canvas.width, 3),
      "size": job.cut(jnp.int32, rows, 2),
      "boxes": job.cut(jnp.float32, rows, boxes, 4),
      "label": job.cut(jnp.int32, rows, boxes),
      "difficult": job.cut(jnp.bool_, rows, boxes),
    },
    look=network.find,
    transform=EvalBoxes(
      max_boxes=boxes,
      short_edge=config.test_edge,
      canvas=bucketed.canvas_of(
        config.test_edge, config.test_edge, config.longest_edge, portrait=False
      ),
    ),
    trainings=len(config.seeds),
    looks=len(config.seeds) * _batches(job, len(job.counts["test_split"])),
  )


def depth(job: Job) -> list[Program]:
  """Trainings of an FCRN, and the comparison with the true depth."""
  config = job.config
  network, state = _made(job, depth_network.DepthNetwork.of)
  rows = config.batch_size
  return _programs(
    job,
    state,
    update=network.update,
    batch={
      "image": job.cut(jnp.uint8, rows, *dense_depth.SEEN, 3),
      "depth": job.cut(jnp.float32, rows, *dense_depth.PREDICTED),
    },
    look=network.compare,
    transform=dense_depth.EvalDepth(),
    trainings=len(config.seeds),
    looks=len(config.seeds) * _looks(job, len(job.counts["test_split"])),
  )


def _made(
  job: Job, make: Callable[[Setting], _Network]
) -> tuple[_Network, dense.DenseState]:
  """The network of an evaluation, and shapes of what it begins with.

  Raises:
    UsageError: the config does not fit the devices, the data or the encoder.
  """
  train = job.counts["train_split"]
  splits.check_batch(job.config.batch_size, train, job.mesh)
  setting = Setting(
    config=job.config,
    encoder=job.encoder,
    workdir="",
    mesh=job.mesh,
    processes=Processes(),
    tell=lambda line: None,
    console=io.StringIO(),
  )

  def begin(variables: Any) -> dense.DenseState:
    encoder = dataclasses.replace(job.encoder, variables=variables)
    return make(dataclasses.replace(setting, encoder=encoder)).create(0)

  state = jax.eval_shape(begin, job.encoder.variables)
  return make(setting), job.whole(state)


def _programs(
  job: Job,
  state: dense.DenseState,
  *,
  update: dense.Update,
  batch: dict[str, jax.ShapeDtypeStruct],
  look: Any,
  transform: pipeline.RowTransform,
  trainings: int,
  looks: int,
) -> list[Program]:
  """Trainings, and what each is measured by.

  Args:
    job: the evaluation.
    state: of a training.
    update: the program that trains.
    batch: what it is given.
    look: the program that looks at images to measure.
    transform: makes a row of its batch.
    trainings: how many there are.
    looks: how many batches are looked at.
  """
  config, variables = job.config, job.encoder.variables
  rows = _shown(job)
  shown = {
    name: job.cut(x.dtype, rows, *x.shape)
    for name, x in transform.empty().items()
  }
  return [
    Program(
      name="update",
      function=update,
      arguments=(
        state,
        batch,
        dense.sgd_of(config, learning_rate=1.0, seed=0),
      ),
      calls=trainings * config.steps,
      beside=variables,  # for the next training
    ),
    Program(
      name="look",
      function=look,
      arguments=(state.variables, {**shown, "mask": job.cut(jnp.bool_, rows)}),
      calls=looks,
      beside=(variables, state.momentum),
    ),
  ]


def _shown(job: Job) -> int:
  """Images of a batch that is measured."""
  return features.shared_size(job.config.evaluation_batch_size, job.mesh)


def _batches(job: Job, images: int) -> int:
  """Batches in which so many images are measured."""
  return -(-images // _shown(job))


def _looks(job: Job, images: int) -> int:
  """Batches that a training is measured on, on its way and at the end."""
  often = job.config.evaluate_every_steps
  on_the_way = -(-job.config.steps // often) if often else 0
  return (1 + on_the_way) * _batches(job, images)
