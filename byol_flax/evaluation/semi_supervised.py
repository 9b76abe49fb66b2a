"""Fine-tuning on a part of the labels (paper §4, App. C.1; Tables 2 and 8)."""

import functools
import itertools
from typing import Any

import jax
import numpy as np
from etils import epath

from byol_flax.evaluation import (
  features,
  grid,
  place,
  splits,
  training,
  whole_network,
)
from byol_flax.evaluation.encoder import Encoder
from byol_flax.evaluation.protocol import Setting, data_of
from byol_flax.pretrain import schedules
from input_pipeline import sources, subsets, whole_files


def run(setting: Setting) -> dict[str, Any]:
  """The protocol of configs/semi_supervised.py."""
  config = setting.config
  train, valid, test = (
    setting.open_split(name)
    for name in ("train_split", "valid_split", "test_split")
  )
  setting.check_splits(train, valid, test)
  reader = setting.make_reader()
  encoder = features.calibrate(
    setting.encoder, train, reader, setting.mesh, batch_size=config.batch_size
  )
  parts = _parts(setting, train, valid)
  for part in parts.values():
    splits.check_batch(config.batch_size, part, setting.mesh)
    splits.check_epochs(min(config.epochs), part, config.batch_size)
  if not _is_listed(config):
    _write_lists(setting, train, parts)
  functions = whole_network.make_functions(
    config, encoder, setting.mesh, num_classes=train.num_classes
  )
  rows = []
  for name, part in parts.items():
    rows.append(_row(setting, encoder, functions, name, part, valid, test))
    setting.tell(_line(rows[-1]))
  count = len(config.learning_rates) * len(config.epochs)
  return {
    "rows": rows,
    "splits": setting.describe(train, valid, test),
    "selection": (
      f"For each part of the labels, of {count} trainings the one with the "
      f"best top-1 on {valid.split}; it alone is reported on {test.split}."
    ),
    "updates": len(config.learning_rates)
    * sum(
      splits.total_steps(epochs, part, config.batch_size)
      for part in parts.values()
      for epochs in config.epochs
    ),
  }


def _is_listed(config: Any) -> bool:
  """Whether a list says which images have labels."""
  return bool(config.subset_file or config.subset_data)


def _parts(
  setting: Setting, train: sources.Source, valid: sources.Source
) -> dict[str, sources.Part]:
  """The labelled images of each row."""
  config = setting.config
  if _is_listed(config):
    return {"listed": _listed(setting, train, valid)}
  labels = subsets.labels_of(train)
  parts = {}
  for share in config.shares:
    name = f"{100 * share:g}-percent"
    indices = subsets.balanced(labels, share, config.subset_seed)
    parts[name] = sources.Part(train, name, indices)
  return parts


def _listed(
  setting: Setting, train: sources.Source, valid: sources.Source
) -> sources.Part:
  """The images of a list, without those on which is chosen.

  The paper does not say whether its lists overlap with its valid.
  """
  config = setting.config
  if config.subset_file:
    of, wanted = config.subset_file, subsets.names_in(config.subset_file)
    place.claim_names(setting.workdir, "subset_file", wanted, setting.processes)
  else:
    of = f"{config.subset_data}, split train"
    _, folder = data_of(config, setting.encoder.config)
    listing = sources.open_source(config.subset_data, "train", folder)
    place.claim_images(
      setting.workdir, "subset_data", listing, setting.processes
    )
    wanted = {*subsets.names_of(listing)}
  indices, shared = subsets.listed(train, valid, wanted, of)
  if shared:
    setting.tell(
      f"{shared:,} of the {len(wanted):,} images of {of} are in {valid.split}, "
      "on which is chosen; they are not trained on."
    )
  return sources.Part(train, "listed", indices)


def _write_lists(
  setting: Setting, train: sources.Source, parts: dict[str, sources.Part]
) -> None:
  """Leaves in the workdir which images were drawn."""
  if jax.process_index() == 0:
    for name, part in parts.items():
      path = epath.Path(setting.workdir, f"labels-{name}.txt")
      text = subsets.write_list(train, np.asarray(part.examples))
      whole_files.write_text(path, text)


def _row(
  setting: Setting,
  encoder: Encoder,
  functions: whole_network.Functions,
  name: str,
  part: sources.Source,
  valid: sources.Source,
  test: sources.Source,
) -> dict[str, Any]:
  """Tries the grid on `part`, chooses on `valid`, reports once on `test`."""
  config = setting.config

  def make(epochs: float, rate: float, folder: str) -> training.Training:
    total_steps = splits.total_steps(epochs, part, config.batch_size)
    return whole_network.make_training(
      setting,
      encoder,
      functions,
      name=folder,
      source=part,
      sgd=whole_network.Sgd(
        peak=schedules.peak_of(rate, config.batch_size),
        warmup_steps=0,
        total_steps=total_steps,
        weight_decay=config.weight_decay,
      ),
    )

  points = {}
  chosen = {}
  for epochs, rate in itertools.product(config.epochs, config.learning_rates):
    folder = f"{name}-lr{rate:g}-{epochs:g}epochs"
    points[folder] = functools.partial(make, epochs, rate, folder)
    chosen[folder] = {"learning_rate": rate, "epochs": epochs}
  found = grid.scores(
    setting,
    points,
    lambda state: whole_network.top1(setting, functions, state, valid),
  )
  best = grid.best(found)
  kept = training.once(
    setting,
    f"scores-{name}",
    lambda: whole_network.report(
      setting, functions, training.run(points[best](), setting), test, name
    ),
  )
  grid.forget(setting, best)
  top1, top5 = kept["test"]
  return {
    "labels": name,
    "examples": len(part),
    **chosen[best],
    "valid_top1": found,
    "top1": top1,
    "top5": top5,
    "confusions": kept.get("confusions"),  # older versions did not keep them
  }


def _line(row: dict[str, Any]) -> str:
  return (
    f"semi-supervised, {row['labels']} of the labels ({row['examples']:,} "
    f"images): top-1 {row['top1']:.3f}, top-5 {row['top5']:.3f} on test "
    f"(learning rate {row['learning_rate']:g}, {row['epochs']:g} epochs)"
  )
