"""Linear evaluation: classifiers on a frozen encoder (paper App. C.1).

All classifiers of a sweep are trained in one pass, so that the encoder computes
each representation only once for all of them.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.evaluation import (
  features,
  kept_pictures,
  linear_heads,
  splits,
  training,
)
from byol_flax.evaluation.encoder import Config, Encoder
from byol_flax.evaluation.protocol import Setting
from byol_flax.pretrain import schedules
from input_pipeline import augment, pipeline, sources
from input_pipeline.errors import UsageError


def run(setting: Setting) -> dict[str, Any]:
  """The protocol of configs/linear.py."""
  config = setting.config
  train, test = (
    setting.open_split("train_split"),
    setting.open_split("test_split"),
  )
  valid = setting.open_split("valid_split") if config.valid_split else None
  setting.check_splits(train, valid, test)
  check(config, train, setting.mesh)
  reader = setting.make_reader()
  encoder = features.calibrate(
    setting.encoder, train, reader, setting.mesh, batch_size=config.batch_size
  )
  heads = heads_of(config)
  rows = []
  for name in config.augmentations:
    sweep = _Sweep(setting, encoder, heads, reader, train, valid, test)
    rows += sweep.rows(name)
  for row in rows:
    setting.tell(_line(row))
  count = len(config.learning_rates)
  steps = splits.total_steps(config.epochs, train, config.batch_size)
  return {
    "rows": rows,
    "splits": setting.describe(train, valid, test),
    "selection": (
      f"For each row, of {count} learning rates the one with the best top-1 on "
      f"{valid.split}; it alone is reported on {test.split}."
      if valid
      else "Nothing is chosen: there is one learning rate."
    ),
    "updates": steps * len(config.augmentations),
  }


def check(config: Any, train: splits.Split, mesh: Mesh) -> None:
  """Raises UsageError for mistakes that would show only after the training."""
  if not config.valid_split and len(config.learning_rates) > 1:
    raise UsageError(
      f"learning_rates has {len(config.learning_rates)} values, but "
      "valid_split is empty; name a split to choose on, or give one learning "
      "rate."
    )
  splits.check_batch(config.batch_size, train, mesh)
  splits.check_epochs(config.epochs, train, config.batch_size)


def heads_of(config: Any) -> list[linear_heads.Head]:
  """The classifiers that are trained together."""
  return [
    linear_heads.Head(rate, regularised)
    for regularised, rate in itertools.product(
      config.logit_regularisation, config.learning_rates
    )
  ]


def make_functions(
  config: Any,
  encoder: Encoder,
  mesh: Mesh,
  *,
  num_classes: int,
  total_steps: int,
) -> tuple[Callable[[], linear_heads.LinearState], Any]:
  """What a sweep computes, apart from what it reads.

  Args:
    config: of configs/linear.py.
    encoder: its variables may be shapes only.
    mesh: where the sweep runs.
    num_classes: K.
    total_steps: updates.

  Returns:
    () -> state before the first update, and `linear_heads.make_step`, jitted.
  """
  heads = heads_of(config)
  step = linear_heads.make_step(
    encoder,
    heads,
    decay=schedules.learning_rate_schedule(
      base_learning_rate=1.0,
      batch_size=config.batch_size,
      warmup_steps=0,
      total_steps=total_steps,
    ),
    momentum=config.momentum,
    alpha=config.logit_clip,
    beta=config.logit_penalty,
  )
  whole = sharding.replicated(mesh)
  y = encoder.representation
  create_state = jax.jit(
    lambda: linear_heads.create_state(
      len(heads), y.shape[-1], num_classes, seed=config.seed, dtype=y.dtype
    ),
    out_shardings=whole,
  )
  return create_state, jax.jit(
    step, donate_argnums=0, out_shardings=(whole, whole)
  )


@dataclasses.dataclass(frozen=True)
class _Sweep:
  """The classifiers of one augmentation, trained together."""

  setting: Setting
  encoder: Encoder
  heads: Sequence[linear_heads.Head]
  reader: pipeline.EvalReader
  train: sources.Source
  valid: sources.Source | None
  test: sources.Source

  def rows(self, name: str) -> list[dict[str, Any]]:
    """The best classifier with plain logits, or regularised ones, or of each.

    The config says which of these there are.
    """
    scores = training.once(
      self.setting, f"scores-{name}", lambda: self._measure(name)
    )
    found = []
    for regularised in self.setting.config.logit_regularisation:
      mine = self._of_kind(regularised)
      chosen = self._best(scores, regularised)
      found.append(
        {
          "augmentation": name,
          "logit_regularisation": regularised,
          "learning_rate": self.heads[chosen].learning_rate,
          "valid_top1": {
            f"{self.heads[i].learning_rate:g}": scores["valid"][i][0]
            for i in mine
            if self.valid
          },
          "top1": scores["test"][chosen][0],
          "top5": scores["test"][chosen][1],
          # Older versions did not keep them.
          "confusions": scores.get("confusions", {}).get(
            _row_name(name, regularised)
          ),
        }
      )
    return found

  def _of_kind(self, regularised: bool) -> list[int]:
    """Which classifiers have plain logits, or regularised ones."""
    return [i for i, h in enumerate(self.heads) if h.regularised == regularised]

  def _best(self, scores: Mapping[str, Any], regularised: bool) -> int:
    """The one that is reported; of equally good ones the first."""
    mine = self._of_kind(regularised)
    if not self.valid:
      return mine[0]
    return max(mine, key=lambda i: scores["valid"][i][0])

  def _measure(self, name: str) -> dict[str, Any]:
    """Trains, and measures once at the end, on valid and test."""
    state = training.run(self._training(name), self.setting)
    counted = [split for split in (self.valid, self.test) if split]
    guesses = self._guesses(state, counted)
    *valid, test = [
      linear_heads.accuracies(x["guesses"], x["label"]) for x in guesses
    ]
    scores = {
      "heads": [linear_heads.name_of(head) for head in self.heads],
      "valid": valid[0].tolist() if valid else [],
      "test": test.tolist(),
    }
    of_test = guesses[-1]
    confusions = {}
    for regularised in self.setting.config.logit_regularisation:
      row = _row_name(name, regularised)
      chosen = of_test["guesses"][:, self._best(scores, regularised), 0]
      confusions[row] = kept_pictures.keep_guesses(
        self.setting.workdir,
        row,
        of_test["label"],
        chosen,
        self.test.class_names,
      )
    return {**scores, "confusions": confusions}

  def _guesses(
    self, state: linear_heads.LinearState, counted: Sequence[sources.Source]
  ) -> list[features.Features]:
    return features.extract_splits(
      linear_heads.make_guess_fn(self.encoder, self.setting.mesh),
      {"encoder": self.encoder.variables, "weights": state.weights},
      counted,
      self.reader,
      mesh=self.setting.mesh,
      part_done=self.setting.processes.part_done,
      missed=self.setting.missed,
    )

  def _training(self, name: str) -> training.Training:
    config, encoder = self.setting.config, self.encoder
    total_steps = splits.total_steps(
      config.epochs, self.train, config.batch_size
    )
    create_state, update = make_functions(
      config,
      encoder,
      self.setting.mesh,
      num_classes=self.train.num_classes,
      total_steps=total_steps,
    )

    def evaluate(state: linear_heads.LinearState) -> dict[str, float]:
      if not self.valid:
        return {}
      (found,) = self._guesses(state, [self.valid])
      scores = linear_heads.accuracies(found["guesses"], found["label"])[:, 0]
      return {
        f"linear/valid/top1/{linear_heads.name_of(head)}": float(score)
        for head, score in zip(self.heads, scores, strict=True)
      }

    one_view = transform(name, encoder.config)
    return training.Training(
      name=name,
      source=self.train,
      stream=functools.partial(
        pipeline.labelled_stream, transform=one_view, seed=config.seed
      ),
      row_bytes=one_view.row_bytes,
      batch_size=config.batch_size,
      total_steps=total_steps,
      create_state=create_state,
      step_fn=lambda state, batch: update(state, encoder.variables, batch),
      evaluate=evaluate,
      evaluate_every=config.evaluate_every_steps,
      headline=("loss", "train/loss"),
    )


def transform(name: str, of_encoder: Config) -> augment.OneView:
  """Crop and flip as in pre-training's view1, or the whole view (Table 7)."""
  view = augment.View(**of_encoder["augment"]["view1"])
  if name == "crop_flip":
    view = augment.crop_and_flip(view)
  return augment.OneView(size=of_encoder["augment"]["size"], view=view)


def _row_name(augmentation: str, regularised: bool) -> str:
  """Names a row of Table 7 in the names of files."""
  return augmentation + "-regularised" * regularised


def _line(row: dict[str, Any]) -> str:
  """Says a row of Table 7 in words."""
  regularised = "logits regularised" if row["logit_regularisation"] else ""
  how = ", ".join(filter(None, [row["augmentation"], regularised]))
  return (
    f"linear, {how}: top-1 {row['top1']:.3f}, top-5 {row['top5']:.3f} on test "
    f"(learning rate {row['learning_rate']:g})"
  )
