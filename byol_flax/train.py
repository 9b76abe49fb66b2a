"""Pre-training, from a config to a trained encoder, top to bottom."""

import dataclasses
import json
import os
from collections.abc import Generator
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from byol_flax import (
  checkpoint,
  loop,
  optimizers,
  pictures,
  report,
  schedules,
  sharding,
  train_state,
  train_step,
  trees,
)
from byol_flax import workdir as workdir_lib
from byol_flax.evaluation import online
from byol_flax.models import byol
from byol_flax.version import code_version
from input_pipeline import augment, pipeline, sources
from input_pipeline.errors import UsageError

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
_GRID_COLUMNS = 8


@dataclasses.dataclass(frozen=True)
class Program:
  """What a config means on a mesh, without data and without arrays.

  Attributes:
    network: online and target network.
    create_state: () -> ByolState on the mesh; jitted.
    abstract_state: its shapes and shardings.
    step_fn: (state, batch) -> (state, metrics); jitted, donates the state.
    total_steps: updates of the run.
  """

  network: byol.ByolNetwork
  create_state: Any
  abstract_state: train_state.ByolState
  step_fn: Any
  total_steps: int


def build(
  config: Any, mesh: Mesh, *, num_examples: int, num_classes: int
) -> Program:
  """Turns a pre-training config into functions; compiles nothing.

  Args:
    config: as made by configs/byol.py.
    mesh: devices to train on.
    num_examples: size of the training split, which turns epochs into steps.
    num_classes: of the online classifier, 0 without labels.

  Raises:
    UsageError: the config asks for something unknown or impossible.
  """
  sharding.check_batch_size(
    config.batch_size,
    devices=mesh.size,
    accumulation_steps=config.accumulation_steps,
  )
  total_steps = int(config.epochs * num_examples / config.batch_size)
  warmup_steps = int(config.warmup_epochs * num_examples / config.batch_size)
  if not 0 <= warmup_steps < total_steps:
    raise UsageError(
      f"{config.epochs:g} epochs of {num_examples} images in batches of "
      f"{config.batch_size} are {total_steps} updates, of which "
      f"{warmup_steps} warm up; there must be more. Take a smaller batch_size "
      "or warmup_epochs, or more epochs."
    )
  network = byol.make_network(
    **config.model.to_dict(),
    num_classes=num_classes,
    dtype=_activation_dtype(config.dtype, mesh),
  )
  learning_rate = schedules.learning_rate_schedule(
    base_learning_rate=config.base_learning_rate,
    batch_size=config.batch_size,
    warmup_steps=warmup_steps,
    total_steps=total_steps,
  )
  target_decay = schedules.target_decay_schedule(
    base_target_decay=config.base_target_decay, total_steps=total_steps
  )
  tx = optimizers.lars(learning_rate, **config.optimizer)

  def create_state() -> train_state.ByolState:
    return train_state.create_byol_state(
      network,
      tx,
      seed=config.seed,
      image_size=config.augment.size,
      target_init=config.target_init,
    )

  whole = sharding.replicated(mesh)
  return Program(
    network=network,
    create_state=jax.jit(create_state, out_shardings=whole),
    abstract_state=jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
      jax.eval_shape(create_state),
    ),
    step_fn=jax.jit(
      train_step.make_train_step(
        network,
        learning_rate=learning_rate,
        target_decay=target_decay,
        accumulation_steps=config.accumulation_steps,
      ),
      donate_argnums=0,
      in_shardings=(whole, sharding.split(mesh)),
      out_shardings=whole,
    ),
    total_steps=total_steps,
  )


def _activation_dtype(name: str, mesh: Mesh) -> Any:
  if name == "auto":
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return jnp.float32 if on_cpu else jnp.bfloat16
  if name not in _DTYPES:
    raise UsageError(
      f"dtype is {name!r}; known are auto, {', '.join(_DTYPES)}."
    )
  return _DTYPES[name]


def make_two_views(config: Any) -> augment.TwoViews:
  """The training transform of a config's `augment` section."""
  return augment.TwoViews(
    size=config.augment.size,
    view1=augment.View(**config.augment.view1),
    view2=augment.View(**config.augment.view2),
  )


def train(config: Any, workdir: str, *, restart: bool, stream: TextIO) -> None:
  """Pre-trains, or resumes pre-training, in `workdir`.

  Args:
    config: as made by configs/byol.py.
    workdir: absolute path of the run's folder.
    restart: set an existing run aside and begin anew.
    stream: console.

  Raises:
    UsageError: before anything is compiled, for all that a user can mend.
    loop.NonFiniteError: training diverged.
  """
  workdir_lib.check_writable(workdir)

  # Data: training split, evaluation split, and the bank of kNN.
  name, data_dir = config.data.name, config.loader.data_dir
  source = sources.ReadableSource(
    sources.open_source(name, config.data.split, data_dir)
  )
  two_views = make_two_views(config)
  evaluation = config.evaluation
  crop = augment.EvalCrop(size=config.augment.size, ratio=evaluation.crop_ratio)
  _check_evaluation_batch(evaluation.batch_size)

  # Model, and whether it fits what is already in the workdir.
  mesh = sharding.make_mesh()
  program = build(
    config, mesh, num_examples=len(source), num_classes=source.num_classes
  )
  if restart:
    workdir_lib.set_aside(workdir)
  checkpoints = checkpoint.Checkpoints(workdir, **config.checkpoint)
  saved = {
    "config": json.loads(json.dumps(config.to_dict())),
    "num_examples": len(source),
    "num_classes": source.num_classes,
    "code_version": code_version(),
  }
  workdir_lib.check_same_run(checkpoints.newest_record(), saved, workdir)

  def make_record(step: int, seconds: float) -> checkpoint.Record:
    position = {"seed": config.seed, "next_update": step}
    return {**saved, "data_position": position, "seconds": seconds}

  if source.num_classes:
    evaluate = online.make_evaluation(
      program.network,
      mesh,
      source=sources.open_source(name, evaluation.split, data_dir),
      bank=sources.open_source(name, evaluation.bank_split, data_dir),
      crop=crop,
      batch_size=evaluation.batch_size,
      neighbours=evaluation.neighbours,
    )
  else:
    evaluate = _no_evaluation

  # State: restored, or new.
  restored = checkpoints.restore(program.abstract_state)
  start_step = int(restored.state.step) if restored else 0
  seconds = restored.record["seconds"] if restored else 0.0
  progress = report.Progress(
    total_steps=program.total_steps,
    batch_size=config.batch_size,
    stream=stream,
  )
  for sentence in restored.damaged if restored else ():
    progress.note(sentence)
  progress.note(
    f"{len(source):,} images of {source.name} ({source.split}), "
    f"{source.num_classes or 'no'} classes; {mesh.size} "
    f"{mesh.devices.flat[0].platform} device(s); "
    f"update {start_step:,} of {program.total_steps:,} in {workdir}"
  )
  if start_step >= program.total_steps:
    progress.note("This run is complete; nothing to do.")
    checkpoints.close()
    return

  # Input: begins with the update after the restored one.
  unreadable = pipeline.UnreadableImages(
    source,
    os.path.join(workdir, f"unreadable-{jax.process_index()}.txt"),
    config.loader.max_unreadable_share,
  )
  batches = _open_batches(
    config, workdir, source, two_views, start_step, unreadable
  )

  with report.Report(
    workdir, writes=jax.process_index() == 0, resume_step=start_step
  ) as out:
    out.hyperparameters(config.to_dict())
    state = restored.state if restored else program.create_state()
    parameters = out.parameter_overview(state.online.params)
    progress.note(
      f"{trees.count(state.online.params['encoder']):,} parameters in the "
      f"encoder, {parameters:,} in all; compiling the first update"
    )
    grid = view_grid(source, two_views, config.seed, _GRID_COLUMNS)
    pictures.save_png(os.path.join(workdir, "views.png"), grid)
    out.images(start_step, {"views": grid[None]})

    transfers = sharding.prefetch(mesh, batches)
    try:
      state, seconds = loop.run(
        state,
        program.step_fn,
        transfers,
        total_steps=program.total_steps,
        batch_size=config.batch_size,
        intervals=loop.Intervals(
          report=config.report.every_steps, evaluate=evaluation.every_steps
        ),
        outlets=loop.Outlets(
          checkpoints=checkpoints,
          make_record=make_record,
          evaluate=evaluate,
          report=out,
          progress=progress,
        ),
        seconds_before=seconds,
      )
    finally:
      progress.close()
      transfers.close()
      batches.close()
      checkpoints.close()
  pictures.training_curves(
    os.path.join(workdir, "metrics.jsonl"), os.path.join(workdir, "curves.png")
  )
  progress.note(
    f"Done: {program.total_steps:,} updates in "
    f"{report.human_duration(seconds)}; results in {workdir}"
  )
  if unreadable.indices:
    progress.note(
      f"{len(unreadable.indices)} image(s) could not be read; their names are "
      f"in {unreadable.report}"
    )


def view_grid(
  source: sources.ReadableSource,
  two_views: augment.TwoViews,
  seed: int,
  count: int,
) -> np.ndarray:
  """Picture, uint8 [H, W, 3], of the first images of a run and their views."""
  originals = pipeline.example_stream(source, seed)[:count]
  views = pipeline.view_stream(source, two_views, seed)[:count]
  drawn = list(views)
  return pictures.view_grid(
    [example["image"] for example in originals],
    np.stack([example["view1"] for example in drawn]),
    np.stack([example["view2"] for example in drawn]),
  )


def _open_batches(
  config: Any,
  workdir: str,
  source: sources.ReadableSource,
  two_views: augment.TwoViews,
  start_step: int,
  unreadable: pipeline.UnreadableImages,
) -> Generator[pipeline.Batch, None, None]:
  """This process's rows of the batches of updates start_step, ..."""
  workers = config.loader.num_workers
  batches = pipeline.train_iterator(
    source,
    two_views,
    seed=config.seed,
    batch_size=config.batch_size,
    start_step=start_step,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    num_workers=os.cpu_count() or 1 if workers < 0 else workers,
    num_threads=config.loader.num_threads,
    unreadable=unreadable,
  )
  if config.report.view_hashes:
    path = os.path.join(workdir, f"view_hashes-{jax.process_index()}.jsonl")
    return _log_digests(batches, path, start_step)
  return batches


def _no_evaluation(state: train_state.ByolState) -> dict[str, float]:
  """Without labels there is nothing to count."""
  del state
  return {}


def _log_digests(
  batches: Generator[pipeline.Batch, None, None], path: str, start_step: int
) -> Generator[pipeline.Batch, None, None]:
  """Appends the digest of each update's rows to a JSONL file, as it is read."""
  try:
    with open(path, "a") as file:
      for step, batch in enumerate(batches, start_step + 1):
        first_row = jax.process_index() * len(batch["label"])
        digest = pipeline.batch_digest(batch, first_row)
        file.write(
          json.dumps({"step": step, "digest": f"{digest:016x}"}) + "\n"
        )
        file.flush()
        yield batch
  finally:
    batches.close()


def _check_evaluation_batch(batch_size: int) -> None:
  """Raises UsageError unless every device gets equal parts."""
  devices = jax.device_count()
  if batch_size < 1 or batch_size % devices:
    raise UsageError(
      f"evaluation.batch_size {batch_size} must be a positive multiple of the "
      f"{devices} device(s)."
    )
