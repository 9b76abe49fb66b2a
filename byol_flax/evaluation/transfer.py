"""Linear transfer: logistic regressions on frozen features (paper App. D.2).

A sweep of penalties on train, one of them chosen on valid, fitted again on
train and valid together, and reported once on test.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from etils import epath

from byol_flax.evaluation import features, logistic, place, scores, training
from byol_flax.evaluation.encoder import Encoder
from byol_flax.evaluation.protocol import Setting
from byol_flax.evaluation.three_splits import Splits, open_splits
from input_pipeline import (
  pipeline,
  sources,
  subsets,
  unreadable,
  whole_files,
)
from input_pipeline.errors import RunError

# What the paper leaves open, and what is done here.
CHOICES = (
  "The loss is summed over images; the penalty is half of its value times the "
  "sum of squared weights; biases are not penalised.",
  "L-BFGS starts from zero weights at the strongest penalty, from the fit "
  "before at the next ones, and from zero again for the last fit. It ends when "
  f"{logistic.TOLERANCE:g} of the objective is left to be gained, or of what "
  "the weights have gained over biases alone if that is less, by a quadratic "
  f"estimate; or after {logistic.MOST_ITERATIONS:,} iterations.",
  "Of penalties that are equally good on valid the strongest is chosen.",
  "Shorter side to the encoder's size and centre crop are one bicubic resize, "
  "not antialiased.",
)
_FOUND = "penalties"  # name of what is kept of the fits
# Features of one split, [N, F], and their labels, [N] or [N, K].
Rows = tuple[np.ndarray, np.ndarray]


def run(setting: Setting) -> dict[str, Any]:
  """The protocol of configs/transfer.py."""
  config = setting.config
  splits = open_splits(setting)
  crop = dataclasses.replace(setting.encoder.crop, ratio=config.crop_ratio)
  reader = features.make_reader(
    crop,
    setting.mesh,
    batch_size=config.batch_size,
    num_workers=config.num_workers,
    num_threads=setting.num_threads,
  )
  encoder = features.calibrate(
    setting.encoder,
    splits.train,
    reader,
    setting.mesh,
    batch_size=config.batch_size,
  )
  train, valid, test = (
    _rows(setting, encoder, reader, name, split, splits.labels[name])
    for name, split in splits.named.items()
  )
  found = training.once(
    setting,
    _FOUND,
    lambda: _found(setting, train, valid, test, splits),
  )
  left_out = [splits.class_name(k) for k in found.pop("left_out")]
  setting.tell(
    f"transfer, {splits.test.name}: {config.metric} {found[config.metric]:.3f} "
    f"on test, {found['valid']:.3f} on valid (penalty {found['penalty']:.3g})"
  )
  if left_out:
    setting.tell(
      f"Classes that test has no image of do not count: {', '.join(left_out)}"
    )
  if found["penalty"] in (config.penalties.least, config.penalties.most):
    setting.tell(
      f"The best penalty, {found['penalty']:.3g}, is at the end of the sweep; "
      "one beyond it may be better."
    )
  return {
    **found,
    "left_out": left_out,
    "selection": (
      f"Of {config.penalties.count} penalties the one with the best "
      f"{config.metric} on valid; fitted anew on train and valid, it alone is "
      "reported on test."
    ),
    "updates": 0,
    "splits": setting.describe(*map(splits.to_train_on, splits.named)),
    "choices": [*splits.choices, *CHOICES],
  }


def _rows(
  setting: Setting,
  encoder: Encoder,
  reader: pipeline.EvalReader,
  name: str,
  split: sources.Source,
  labels: np.ndarray,
) -> Rows:
  """Features and labels of a split, computed now or by an earlier start.

  They are kept in the workdir, because they cost more than all that follows.
  """
  path = epath.Path(setting.workdir, f"features-{name}.npz")
  if kept := _kept(setting, path, split):
    numbers, found = kept
    setting.missed(split, np.setdiff1d(np.arange(len(split)), numbers).tolist())
  else:
    setting.console.write(f"features of {reader.describe(split)}\n")
    (read,) = features.extract_splits(
      features.make_feature_fn(encoder, setting.mesh),
      encoder.variables,
      [subsets.Numbered(split)],
      reader,
      mesh=setting.mesh,
      part_done=setting.progress(
        reader.count_batches(split), reader.batch_size
      ),
      missed=setting.missed,
    )
    numbers, found = read["label"], read["representation"]
    if jax.process_index() == 0:
      place.note_maker(setting.workdir, setting.maker)
      whole_files.write_arrays(
        path,
        {
          "numbers": numbers,
          "features": found,
          "fingerprint": np.array(split.fingerprint),
        },
      )
  if not np.isfinite(found).all():
    raise RunError(
      f"The encoder gives features of {split.split} that are not finite "
      "numbers; no classifier can be fitted. Evaluate another checkpoint."
    )
  return found, labels[numbers]


def _kept(
  setting: Setting, path: epath.Path, split: sources.Source
) -> tuple[np.ndarray, np.ndarray] | None:
  """What an earlier start kept, unless the images have changed since.

  All processes must see it: what process 0 wrote others may see later.
  """
  if setting.processes.any(not path.exists()):
    return None
  kept = whole_files.read_arrays(str(path), whole_files.FOUND_AGAIN)
  if setting.processes.any(str(kept["fingerprint"]) != split.fingerprint):
    return None
  missing = np.setdiff1d(np.arange(len(split)), kept["numbers"]).tolist()
  most = setting.config.max_unreadable_share
  if not len(kept["numbers"]) or unreadable.too_many(split, missing, most):
    # More is missing than may be, so the images are read again: they may have
    # been mended. What was found without them does not count then.
    if jax.process_index() == 0:
      found = epath.Path(setting.workdir, f"{_FOUND}.json")
      found.unlink(missing_ok=True)
    return None
  return kept["numbers"], kept["features"]


def _found(
  setting: Setting, train: Rows, valid: Rows, test: Rows, splits: Splits
) -> dict[str, Any]:
  """The sweep, the choice, and the report."""
  config, num_classes = setting.config, splits.num_classes
  measure = scores.METRICS[config.metric]
  path = _sweep(setting, train, valid, num_classes)
  chosen = max(path, key=lambda row: row["valid"])  # of equal ones the first
  both = logistic.Regression(
    np.concatenate([train[0], valid[0]]),
    np.concatenate([train[1], valid[1]]),
    num_classes=num_classes,
    mesh=setting.mesh,
  )
  (fit,) = both.path([chosen["penalty"]])
  found = logistic.Scorer.of(test[0], setting.mesh)(fit)
  result = measure(found, test[1])
  return {
    config.metric: result.value,
    "valid": chosen["valid"],
    "penalty": chosen["penalty"],
    "path": path,
    "last_fit": _facts(fit),
    "left_out": list(result.left_out),
    "confusions": splits.keep_guesses(setting.workdir, found, test[1]),
  }


def _sweep(
  setting: Setting, train: Rows, valid: Rows, num_classes: int
) -> list[dict[str, Any]]:
  """A row for each penalty, the strongest first."""
  measure = scores.METRICS[setting.config.metric]
  score = logistic.Scorer.of(valid[0], setting.mesh)
  regression = logistic.Regression(
    *train, num_classes=num_classes, mesh=setting.mesh
  )
  penalties = logistic.penalties(**setting.config.penalties)
  rows: list[dict[str, Any]] = []
  for fit in regression.path(penalties):
    rows.append(
      {
        "penalty": fit.penalty,
        "valid": measure(score(fit), valid[1]).value,
        **_facts(fit),
      }
    )
    setting.console.write(
      f"penalty {len(rows)} of {len(penalties)}, {fit.penalty:.1e}: "
      f"{rows[-1]['valid']:.3f} on valid after {fit.iterations} iterations\n"
    )
    setting.processes.part_done()
  return rows


def _facts(fit: logistic.Fit) -> dict[str, Any]:
  """How a fit ended."""
  return {
    "objective": fit.objective,
    "excess": fit.excess,
    "iterations": fit.iterations,
    "stalled": fit.stalled,
  }
