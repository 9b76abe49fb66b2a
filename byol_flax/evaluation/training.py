"""Trains within an evaluation, by the one loop, in a folder of its own.

A protocol may train many times. Each training resumes by itself, and a finished
one is not repeated.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from byol_flax import sharding
from byol_flax.evaluation import encoder, place
from byol_flax.evaluation.protocol import Setting
from byol_flax.runs import (
  checkpoint,
  loop,
  metrics_log,
  out_files,
  progress_line,
  records,
)
from byol_flax.runs.start_clock import StartClock
from byol_flax.runs.time_spent import Attempt
from byol_flax.runs.version import code_version
from input_pipeline import (
  dense_sources,
  loading,
  pipeline,
  sources,
  whole_files,
)
from input_pipeline.unreadable import UnreadableImages, lines_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
  """What is trained, and how long.

  Attributes:
    name: of the folder within the evaluation's workdir.
    source: labelled images.
    stream: `source`, when it can be read -> the endless stream of examples that
      batches are made of, such as `pipeline.labelled_stream`.
    row_bytes: of the arrays of an example, at most.
    batch_size: images of an update, on all devices together.
    total_steps: how many updates.
    create_state: () -> state before the first update, on the mesh; has `step`.
    step_fn: (state, batch) -> (state, metrics), jitted; the batch has what the
      stream's examples have, but for "unreadable".
    evaluate: state -> metrics, at the end and after every `evaluate_every`
      updates (0: only at the end).
    headline: see `loop.Outlets`.
  """

  name: str
  source: sources.Source
  stream: Callable[[sources.ReadableSource], pipeline.Stream]
  row_bytes: int
  batch_size: int
  total_steps: int
  create_state: Callable[[], Any]
  step_fn: Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]
  evaluate: Callable[[Any], dict[str, float]]
  evaluate_every: int
  headline: tuple[str, str]


_UNREAD = "unreadable"  # key of what is kept
_DIVERGED = (
  "If the loss had grown, the learning rate is probably too high for these "
  "features."
)


def run(training: Training, setting: Setting) -> Any:
  """Trains to the end, from where an earlier start stopped; returns the state.

  Raises:
    PreemptedError: after a save; the same command goes on.
  """
  folder = str(epath.Path(setting.workdir, training.name))
  state = _trained(training, setting, folder)
  # Not every process may see yet what the others have written.
  found = setting.processes.union(line.position for line in lines_of(folder))
  setting.missing.trained(training.source, found)
  return state


def _trained(training: Training, setting: Setting, folder: str) -> Any:
  """The state after the last update."""
  config, processes = setting.config, setting.processes
  checkpoints = checkpoint.Checkpoints(
    folder, processes=processes, **config.checkpoint
  )
  try:
    whole = sharding.replicated(setting.mesh)
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
      jax.eval_shape(training.create_state),
    )
    restored = checkpoints.restore(abstract)
    state = restored.state if restored else training.create_state()
    if int(state.step) >= training.total_steps:
      return state
    seconds = restored.record["seconds"] if restored else 0.0
    checkpoints.check_room(abstract)
    if jax.process_index() == 0:
      # Another start may measure what this one trains.
      place.note_maker(setting.workdir, setting.maker)
    return _train(training, setting, folder, checkpoints, state, seconds)
  finally:
    checkpoints.close()


def _train(
  training: Training,
  setting: Setting,
  folder: str,
  checkpoints: checkpoint.Checkpoints,
  state: Any,
  seconds: float,
) -> Any:
  """Does the updates that are missing."""
  config, begun = setting.config, time.monotonic()
  start_step = int(state.step)
  source = sources.ReadableSource(training.source)
  progress = progress_line.Progress(
    total_steps=training.total_steps,
    batch_size=training.batch_size,
    stream=setting.console,
  )
  unreadable = UnreadableImages(
    source,
    f"{folder}/unreadable-{jax.process_index()}.txt",
    config.max_unreadable_share,
    lines_of(folder),
    share_key="max_unreadable_share",
    may_be_removed=not dense_sources.is_dense(training.source),
  )
  how, batches = _open_input(training, setting, source, start_step, unreadable)
  progress.note(
    f"{training.name}: update {start_step:,} of {training.total_steps:,}; "
    f"input: {how}"
  )
  leads = jax.process_index() == 0
  start_clock = StartClock(begun)
  with (
    metrics_log.MetricsLog(folder, writes=leads, resume_step=start_step) as out,
    Attempt(
      folder,
      step=start_step,
      batch_size=training.batch_size,
      about={"code_version": code_version()},
      start_clock=start_clock,
      writes=leads,
    ) as attempt,
  ):
    try:
      progress.notes([out.note, *unreadable.changes])
      state, _ = loop.run(
        state,
        training.step_fn,
        sharding.prefetch(setting.mesh, batches),
        total_steps=training.total_steps,
        batch_size=training.batch_size,
        intervals=loop.Intervals(
          report=config.report_every_steps, evaluate=training.evaluate_every
        ),
        outlets=loop.Outlets(
          checkpoints=checkpoints,
          make_record=lambda step, seconds: {
            **_record(setting),
            "seconds": seconds,
          },
          evaluate=training.evaluate,
          report=out,
          attempt=attempt,
          progress=progress,
          processes=setting.processes,
          starved=lambda: "More cores would read faster.",
          headline=training.headline,
          diverged=_DIVERGED,
          watch=lambda update, values: None,
        ),
        evaluate_first=False,
        start_clock=start_clock,
        begun=begun - seconds,
      )
    finally:
      progress.close()
      batches.close()
  if unreadable.indices:
    progress.note(unreadable.sentence())
  return state


def _record(setting: Setting) -> checkpoint.Record:
  """The record that `encoder.open_encoder` needs in a checkpoint.

  Its config is the encoder's, because that describes the network.
  """
  config = encoder.plain_config(setting.encoder.config)
  return {
    "format": records.FORMAT,
    "config": json.loads(json.dumps(config)),
    "init": None,
    "code_version": code_version(),
  }


def _open_input(
  training: Training,
  setting: Setting,
  source: sources.ReadableSource,
  start_step: int,
  unreadable: UnreadableImages,
) -> tuple[loading.Loading, loading.Batches]:
  """Opens this process's batches, to be closed; says who makes them."""
  rows = training.batch_size // jax.process_count()
  how = loading.choose_loading(
    num_workers=setting.config.num_workers,
    num_threads=setting.num_threads,
    rows=rows,
    row_bytes=training.row_bytes,
  )
  return how, pipeline.train_iterator(
    training.stream(source),
    how,
    rows=rows,
    start_step=start_step,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    unreadable=unreadable,
  )


def check_finite(finite: bool, split: sources.Source) -> None:
  """Raises NonFiniteError unless what a network says of a split is `finite`.

  The last update may diverge, and no loss after it tells so.
  """
  if not finite:
    raise loop.NonFiniteError(
      f"What the network says of {split.split} is not finite, so the last "
      "update diverged.",
      "Give a lower learning rate and another --workdir.",
    )


def once(
  setting: Setting, name: str, find: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
  """Returns the JSON object that `find` makes, or that an earlier start kept.

  All processes call this, and process 0 writes `workdir/name.json`, with what
  could not be read.
  """
  path = epath.Path(setting.workdir, f"{name}.json")
  # Other processes may not see yet what process 0 has written.
  if not setting.processes.any(path.exists()):
    found = find()
    kept = {**found, _UNREAD: setting.missing.as_json()}
    if jax.process_index() == 0:
      place.note_maker(setting.workdir, setting.maker)
      out_files.write_json(str(path), kept)
    kept = json.loads(json.dumps(kept))
  else:
    kept = whole_files.read_object(path, whole_files.FOUND_AGAIN)
  setting.missing.kept(kept.pop(_UNREAD, None))
  return kept
