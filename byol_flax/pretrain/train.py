"""Pre-training, from a config to a trained encoder, top to bottom."""

import functools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from byol_flax import sharding, trees
from byol_flax.models import byol
from byol_flax.pretrain import (
  build,
  initial_state,
  inputs,
  origin,
  places,
  train_state,
  watch,
)
from byol_flax.reports import curves, png, views
from byol_flax.runs import (
  checkpoint,
  digest,
  loop,
  metrics_log,
  progress_line,
  records,
  run_files,
  same_data,
  stage,
)
from byol_flax.runs import workdir as workdir_lib
from byol_flax.runs.distributed import Processes
from byol_flax.runs.metrics_log import MetricsLog
from byol_flax.runs.start_clock import StartClock
from byol_flax.runs.time_spent import Attempt
from byol_flax.runs.version import code_version
from input_pipeline import appending, pipeline, sources
from input_pipeline.unreadable import UnreadableImages

_GRID_COLUMNS = 8
_DIVERGED = (
  "If the loss or the gradient had grown, the learning rate is probably too "
  "high for this batch size. If the deviation was near 0 or the rank near 1, "
  "the network has collapsed; a slower target or a longer warm-up often helps."
)

Evaluate = Callable[[train_state.ByolState], dict[str, float]]
# (config, network, mesh, processes, tell) -> the evaluation, and a phrase that
# says who reads its images.
OpenEvaluation = Callable[
  [Any, byol.ByolNetwork, Mesh, Processes, Callable[[str], None]],
  tuple[Evaluate, str],
]


def train(
  config: Any,
  workdir: str,
  *,
  restart: bool,
  begins_with: origin.Origin | None,
  open_evaluation: OpenEvaluation,
  processes: Processes,
  start_clock: StartClock,
  stream: TextIO,
  just_rolled_back: checkpoint.Record | None = None,
) -> None:
  """Pre-trains, or resumes pre-training, in `workdir`.

  Args:
    config: as made by configs/byol.py.
    workdir: absolute path of the run's folder, or gs://BUCKET/PATH; the caller
      keeps other runs out of it, see `workdir.taken`.
    restart: whether to set an existing run aside and begin anew.
    begins_with: where the first weights come from, random if None.
    open_evaluation: what is measured while the network trains.
    processes: all that take part; each calls this with the same arguments.
    start_clock: tells where the time goes until the first update is done.
    stream: console.
    just_rolled_back: what `roll_back.go_back` returned, if it was called.

  Raises:
    UsageError: for all that a user can mend, before anything is compiled.
    loop.NonFiniteError: training diverged.
    roll_back.CollapsedError: the network collapsed; see `watch`.
    PreemptedError: a process was told to end; all is saved.
  """
  start_clock.end("import")

  # The run in the workdir, which --restart moves only when all is in order.
  open_checkpoints = functools.partial(
    checkpoint.Checkpoints, workdir, processes=processes, **config.checkpoint
  )
  checkpoints = None if restart else open_checkpoints()
  before = checkpoints.newest_record() if checkpoints else None
  workdir_lib.check_same_run(before, {"config": _plain(config)}, workdir)
  watching = watch.Watch(config, before, workdir, processes, just_rolled_back)

  # Data: training split, evaluation split, and the bank of kNN.
  if stage.stage(config, processes, lambda line: print(line, file=stream)):
    start_clock.end("staging")
  opened = same_data.open_images(config, before, workdir)
  source = sources.ReadableSource(opened.source)
  mesh = sharding.make_mesh()
  read = inputs.open_inputs(watching.config, source, mesh)

  built = _build(watching.config, mesh, source, read)
  beginning = initial_state.open_beginning(
    begins_with, built, mesh, workdir, _plain(config), restart, processes
  )
  if checkpoints is None:
    run_files.set_aside(workdir, processes)
    checkpoints = open_checkpoints()
  saved = {**_describe(config, source), "init": beginning.record}
  make_record = functools.partial(_record, saved, watching)
  progress = progress_line.Progress(
    total_steps=built.total_steps, batch_size=config.batch_size, stream=stream
  )
  evaluate, evaluation_input = open_evaluation(
    config, built.network, mesh, processes, progress.note
  )

  start_clock.end("data")

  # State: restored, or new.
  restored, notes = _restore(checkpoints, built, workdir, processes)
  start_step = int(restored.state.step) if restored else beginning.step
  seconds = restored.record["seconds"] if restored else 0.0
  devices = sharding.describe(mesh)
  where = f"update {start_step:,} of {built.total_steps:,} in {workdir}"
  notes = (*notes, f"{sources.summary(source)}; {devices}; {where}")
  progress.notes((*notes, beginning.sentence, built.scaling, *opened.moved))
  intervals = loop.Intervals(
    report=config.report.every_steps, evaluate=config.evaluation.every_steps
  )
  due = intervals.due(start_step, 0, built.total_steps)[1]
  missing = due and processes.any(_evaluation_missing(workdir, start_step))
  if start_step >= built.total_steps and not missing:
    progress.notes(workdir_lib.complete(workdir))
    checkpoints.close()
    return

  # Input: begins after the restored update, and reads while the step compiles.
  checkpoints.check_room(built.abstract_state)
  began = time.monotonic()
  leads = jax.process_index() == 0
  unreadable = _open_unreadable(source, opened, workdir, config)
  batches = read.open_batches(start_step, unreadable)
  advice = () if start_step else inputs.on_sizes(config.augment, source)
  told = (f"input: {read.how}", f"input of evaluations: {evaluation_input}")
  progress.notes((*unreadable.changes, *advice, *told))

  with (
    MetricsLog(workdir, writes=leads, resume_step=start_step) as out,
    unreadable.watching(),
    _open_attempt(
      config, workdir, start_step, saved, devices, start_clock
    ) as attempt,
  ):
    try:
      out.hyperparameters(config.to_dict())
      watching.begin(restored, out.add_note, progress.note)
      state = (
        restored.state if restored else beginning.enter(built.create_state())
      )
      progress.notes((out.note, _count_parameters(out, state)))
      if leads:
        _show_views(out, workdir, start_step, config, source)
      hashes = config.report.view_hashes
      logged = _log_digests(batches, workdir, start_step) if hashes else batches
      start_clock.end("state")
      with attempt.on("compiling"):
        step_fn = built.compile_step(start_clock.end)
        digest.compile_ahead(built.abstract_state)
      state, seconds = loop.run(
        state,
        step_fn,
        sharding.prefetch(mesh, logged, read.put_images(mesh)),
        total_steps=built.total_steps,
        batch_size=config.batch_size,
        intervals=intervals,
        outlets=loop.Outlets(
          checkpoints=checkpoints,
          make_record=make_record,
          evaluate=evaluate,
          report=out,
          attempt=attempt,
          progress=progress,
          processes=processes,
          starved=read.advice,
          headline=("loss", "train/byol_loss"),
          diverged=_DIVERGED,
          watch=watching.look,
        ),
        evaluate_first=missing,
        start_clock=start_clock,
        begun=began - seconds,
      )
    finally:
      progress.close()
      batches.close()
      checkpoints.close()
  _end(progress, workdir, built.total_steps, seconds, unreadable, attempt)


def _build(
  config: Any, mesh: Mesh, source: sources.ReadableSource, read: inputs.Inputs
) -> build.Built:
  """Turns the config of a run into functions for these images."""
  return build.build(
    config,
    mesh,
    num_examples=len(source),
    num_classes=source.num_classes,
    resident=read.resident,
  )


def _open_unreadable(
  source: sources.ReadableSource,
  opened: same_data.Opened,
  workdir: str,
  config: Any,
) -> UnreadableImages:
  """Opens the list of the images that this process could not read."""
  return UnreadableImages(
    source,
    f"{workdir}/unreadable-{jax.process_index()}.txt",
    config.loader.max_unreadable_share,
    opened.found_unreadable,
  )


def _open_attempt(
  config: Any,
  workdir: str,
  step: int,
  saved: checkpoint.Record,
  devices: str,
  start_clock: StartClock,
) -> Attempt:
  """Opens the line of this start, which follows update `step`."""
  about = {name: saved[name] for name in ("code_version", "init")}
  return Attempt(
    workdir,
    step=step,
    batch_size=config.batch_size,
    about={**about, "devices": devices},
    start_clock=start_clock,
    writes=jax.process_index() == 0,
  )


def _count_parameters(out: MetricsLog, state: train_state.ByolState) -> str:
  """Writes the table of parameters and says how many there are."""
  parameters = out.parameter_overview(state.online.params)
  return (
    f"{trees.count(state.online.params['encoder']):,} parameters in the "
    f"encoder, {parameters:,} in all; compiling the first update"
  )


def _show_views(
  out: MetricsLog,
  workdir: str,
  step: int,
  config: Any,
  source: sources.ReadableSource,
) -> None:
  """Writes a picture of the first views to the workdir and TensorBoard."""
  grid, _ = view_grid(source, config.augment, config.seed, _GRID_COLUMNS)
  png.save_png(f"{workdir}/views.png", grid)
  if not step:
    out.images(step, {"views": grid[None]})


def view_grid(
  source: sources.ReadableSource,
  settings: places.AugmentConfig,
  seed: int,
  count: int,
) -> tuple[np.ndarray, int]:
  """Picture, uint8 [H, W, 3], of the first images of a run and their views.

  Returns:
    The picture, and how many of the images could not be read; their neighbours
    stand in their place.
  """
  originals = list(pipeline.example_stream(source, seed)[:count])
  stream = pipeline.view_stream(
    source,
    inputs.make_two_views(settings),
    seed,
    scaled_decoding=settings.scaled_decoding,
  )
  drawn = list(stream[:count])
  picture = views.view_grid(
    [example["image"] for example in originals],
    np.stack([example["view1"] for example in drawn]),
    np.stack([example["view2"] for example in drawn]),
  )
  return picture, sum(example["unreadable"] >= 0 for example in originals)


def _restore(
  checkpoints: checkpoint.Checkpoints,
  built: build.Built,
  workdir: str,
  processes: Processes,
) -> tuple[checkpoint.Restored | None, tuple[str, ...]]:
  """The newest sound checkpoint, if there is one, and what to say of it."""
  restored = checkpoints.restore(built.abstract_state)
  if restored:
    return restored, restored.damaged
  return None, run_files.set_aside_unsaved(workdir, processes)


def _plain(config: Any) -> dict[str, Any]:
  """The config as it comes back from JSON."""
  return json.loads(json.dumps(config.to_dict()))


def _describe(config: Any, source: sources.ReadableSource) -> checkpoint.Record:
  """What a checkpoint records of the run as a whole."""
  return {
    "format": records.FORMAT,
    "config": _plain(config),
    **same_data.describe(source),
    "code_version": code_version(),
  }


def _record(
  saved: checkpoint.Record, watching: watch.Watch, step: int, seconds: float
) -> checkpoint.Record:
  """What the checkpoint of update `step` records, `saved` and what is now."""
  position = {"seed": watching.config.seed, "next_update": step}
  now = {"data_position": position, "seconds": seconds}
  return {**saved, **watching.record(), **now}


def _end(
  progress: progress_line.Progress,
  workdir: str,
  total_steps: int,
  seconds: float,
  unreadable: UnreadableImages,
  attempt: Attempt,
) -> None:
  """Draws how training went, and tells what was done."""
  if jax.process_index() == 0:
    curves.training_curves(f"{workdir}/metrics.jsonl", f"{workdir}/curves.png")
  progress.note(
    f"Done: {total_steps:,} updates in "
    f"{progress_line.human_duration(seconds)}; results in {workdir}"
  )
  if unreadable.indices:
    progress.note(unreadable.sentence())
  progress.note(attempt.totals().sentence())


def _evaluation_missing(workdir: str, step: int) -> bool:
  """Whether a preemption came between the save at `step` and its evaluation.

  Only process 0 looks, because others may not see yet what it has written.
  """
  if step == 0 or jax.process_index():
    return False
  return not metrics_log.evaluated(epath.Path(workdir, "metrics.jsonl"), step)


def _log_digests(
  batches: Iterable[pipeline.Batch], workdir: str, start_step: int
) -> Iterator[pipeline.Batch]:
  """Appends the digest of each update's rows to a JSONL file, as it is read."""
  path = epath.Path(workdir, f"view_hashes-{jax.process_index()}.jsonl")
  for step, batch in enumerate(batches, start_step + 1):
    first_row = jax.process_index() * len(batch["label"])
    digest = pipeline.batch_digest(batch, first_row)
    line = {
      "step": step,
      "digest": f"{digest:016x}",
      "processes": jax.process_count(),
    }
    appending.append(path, (json.dumps(line) + "\n").encode())
    yield batch
