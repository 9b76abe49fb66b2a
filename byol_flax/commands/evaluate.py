"""`byol evaluate`: from a workdir to a table and `summary.json`."""

import argparse
import dataclasses
import sys
from typing import Any, TextIO

import jax
from etils import epath

from byol_flax import sharding
from byol_flax.commands.config_file import config_of_run
from byol_flax.evaluation import representations
from byol_flax.pretrain import build
from byol_flax.runs import checkpoint, compilation, devices, out_files, records
from byol_flax.runs.version import code_version
from input_pipeline import augment, labels, pipeline, sources
from input_pipeline.errors import UsageError


def run(options: argparse.Namespace, config: Any) -> int:
  """Evaluates the run in `options.workdir`."""
  compilation.keep_programs(options.compilation_cache)
  devices.open_devices()
  record = read_run(options.workdir)
  evaluate(
    config, config_of_run(record), record, options.workdir, stream=sys.stdout
  )
  return 0


def read_run(workdir: str) -> checkpoint.Record:
  """The record of the newest checkpoint in `workdir`.

  Raises:
    UsageError: there is none.
  """
  if epath.Path(workdir, "checkpoints").is_dir():
    checkpoints = checkpoint.Checkpoints.reader(workdir)
    record = checkpoints.newest_record()
    checkpoints.close()
    if record:
      return record
  raise UsageError(
    f"There is no checkpoint in {workdir}; train there first, or give the "
    "--workdir of a run."
  )


def evaluate(
  config: Any,
  run_config: Any,
  record: checkpoint.Record,
  workdir: str,
  *,
  stream: TextIO,
) -> None:
  """Evaluates the newest checkpoint in `workdir` and prints the table.

  Writes `workdir/summary.json`: the table, step and seconds of training, and
  the code versions of both.

  Args:
    config: as made by configs/evaluate.py.
    run_config: the config of the run, from its record.
    record: of the run, whose images need not be there any more.
    workdir: absolute path of the run's folder.
    stream: console.

  Raises:
    UsageError: for all that a user can mend.
  """
  mesh = sharding.make_mesh()
  built = build.build(
    run_config,
    mesh,
    num_examples=record["num_examples"],
    num_classes=record["num_classes"],
  )
  known, found = (
    _open_split(config, run_config, setting, stream)
    for setting in ("train_split", "test_split")
  )
  _check(config, known)
  checkpoints = checkpoint.Checkpoints.reader(workdir)
  restored = checkpoints.restore(built.abstract_state)
  checkpoints.close()
  if restored is None:
    raise UsageError(f"There is no checkpoint in {workdir}; train there first.")
  for sentence in restored.damaged:
    stream.write(sentence + "\n")

  settings = config.few_label.to_dict()
  reader = pipeline.EvalReader(
    crop=augment.EvalCrop(
      size=run_config.augment.size, ratio=run_config.evaluation.crop_ratio
    ),
    batch_size=config.batch_size,
    num_workers=run_config.loader.num_workers,
    num_threads=run_config.loader.num_threads,
    process_index=0,
    process_count=1,
  )
  for split in (known, found):
    stream.write(f"input of {split.split}: {reader.describe(split)}\n")
  rows = representations.evaluate(
    config.representations,
    representations.make_extractor(
      built.network,
      mesh,
      trained=restored.state.online.variables,
      untrained=built.create_state().online.variables,
      reader=reader,
    ),
    known,
    found,
    neighbours=config.neighbours,
    tell=lambda sentence: print(sentence, file=stream),
    **settings,
  )
  stream.write(representations.table(rows, config.neighbours) + "\n")
  summary = _summary(config, restored, rows)
  path = epath.Path(workdir, "summary.json")
  out_files.write_json(str(path), summary)
  stream.write(f"Written to {path}\n")


def _summary(
  config: Any, restored: checkpoint.Restored, rows: list[representations.Row]
) -> dict[str, Any]:
  """What `summary.json` keeps."""
  return {
    "step": int(restored.state.step),
    "training_seconds": round(restored.record["seconds"], 1),
    "init": records.completed(restored.record)["init"],
    "training_code": restored.record["code_version"],
    "evaluation_code": code_version(),
    "devices": f"{jax.device_count()} {jax.devices()[0].platform}",
    "evaluation": config.to_dict(),
    "table": [dataclasses.asdict(row) for row in rows],
  }


def _open_split(
  config: Any, run_config: Any, setting: str, stream: TextIO
) -> sources.Source:
  """One of the labelled splits, of the run's data set if no other is named."""
  split = config[setting]
  source = sources.open_source(
    config.data_name or run_config.data.name,
    split,
    config.data_dir or run_config.loader.data_dir,
  )
  if not source.num_classes:
    raise UsageError(
      f"{source.name} has no labels to evaluate with; name a labelled set, "
      "such as --config.data_name=folder:DIR with one sub-folder per class."
    )
  if some := labels.check_labelled(source, f"{setting}={split}"):
    stream.write(f"{some}\n")
  return source


def _check(config: Any, known: sources.Source) -> None:
  """Raises UsageError for what would fail after minutes."""
  if config.neighbours > len(known):
    raise UsageError(
      f"neighbours is {config.neighbours}; {known.split} has {len(known)} "
      "images to look among."
    )
