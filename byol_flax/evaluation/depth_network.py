"""Trains FCRN, and measures it on whole splits."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from byol_flax import sharding
from byol_flax.evaluation import (
  dense,
  depth_metrics,
  kept_pictures,
  training,
)
from byol_flax.evaluation.protocol import Setting
from byol_flax.models import depth, grouping
from input_pipeline import dense_depth, pipeline, sources
from input_pipeline.errors import UsageError

# Pixels for each place of the map: the decoder enlarges it 16 times, to half of
# the image's height and width; and its channels are halved five times.
_STRIDE = 32
# Convention -> sums over rows, see `depth_metrics.row_sums`.
SumsOf = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class DepthNetwork:
  """What all trainings share, so that it is compiled once.

  Attributes:
    setting: of the evaluation.
    create: see `dense.make_creator`.
    update: see `dense.make_update`.
    compare: (variables, batch) -> `SumsOf` of a test batch.
    show: (variables, batch) -> "image", "mask", and of the pixels that the
      network has seen "depth" and "found", float32 [B, h, w].
  """

  setting: Setting
  create: Callable[[int], dense.DenseState]
  update: dense.Update
  compare: Callable[[Any, Any], SumsOf]
  show: Callable[[Any, Any], dict[str, jax.Array]]

  @classmethod
  def of(cls, setting: Setting) -> "DepthNetwork":
    """Compiles nothing yet."""
    config, mesh = setting.config, setting.mesh
    module = make_module(setting)
    whole = sharding.replicated(mesh)

    def example() -> tuple[jax.Array]:
      shape = (mesh.size, *dense_depth.SEEN, 3)
      return (jnp.zeros(shape, jnp.uint8),)

    def pairs(
      variables: Any, batch: Any
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
      found: Any = module.apply(variables, batch["image"], train=False)
      return depth_metrics.pairs(found, batch["depth"])

    def compare(variables: Any, batch: Any) -> SumsOf:
      return {
        name: depth_metrics.row_sums(found, true, batch["mask"])
        for name, (found, true) in pairs(variables, batch).items()
      }

    def show(variables: Any, batch: Any) -> dict[str, jax.Array]:
      found, true = pairs(variables, batch)["cropped"]
      return {
        "image": batch["image"],
        "mask": batch["mask"],
        "depth": true,
        "found": found,
      }

    return cls(
      setting=setting,
      create=dense.make_creator(module, example, setting),
      update=dense.make_update(
        make_loss(module, config.huber_share),
        setting,
        moves=dense.trained_parts(batch_norm=config.batch_norm),
        decays=lambda names: True,
      ),
      compare=jax.jit(compare, out_shardings=whole),
      show=jax.jit(show, out_shardings=whole),
    )

  def trial(
    self, train: sources.Source, test: sources.Source, seed: int, *, keeps: bool
  ) -> dict[str, dict[str, dict[str, float]]]:
    """What a training reaches on "test" and "train", by convention.

    Only what it says of test is a result; train tells whether the network has
    learnt what it was shown. `keeps` says whether pictures are kept.
    """
    name = f"seed-{seed}"

    def report() -> dict[str, dict[str, dict[str, float]]]:
      state = self._train(name, train, test, seed)
      if keeps:
        self._keep(state, test)
      return {
        key: self.measures(state, split)
        for key, split in (("test", test), ("train", train))
      }

    return dense.trial(self.setting, name, report)

  def _train(
    self, name: str, train: sources.Source, test: sources.Source, seed: int
  ) -> dense.DenseState:
    """Trains, or goes on; the curve shows how it does on test."""
    config = self.setting.config
    view = make_view(config)

    def evaluate(state: dense.DenseState) -> dict[str, float]:
      found = self.measures(state, test)[config.convention]
      return {f"depth/{test.split}/{key}": x for key, x in found.items()}

    return dense.train(
      self.setting,
      name=name,
      source=train,
      stream=functools.partial(
        pipeline.labelled_stream, transform=view, seed=seed
      ),
      row_bytes=view.row_bytes,
      create_state=self.create,
      update=self.update,
      sgd=dense.sgd_of(config, learning_rate=config.learning_rate, seed=seed),
      evaluate=evaluate,
      evaluate_every=config.evaluate_every_steps,
    )

  def measures(
    self, state: dense.DenseState, split: sources.Source
  ) -> dict[str, dict[str, float]]:
    """The five measures of a split, by convention."""
    return measures_of(self.setting, self.compare, state.variables, split)

  def _keep(self, state: dense.DenseState, test: sources.Source) -> None:
    """Keeps some images of test for pictures."""
    chosen = kept_pictures.spread(len(test), self.setting.config.pictures)
    rows = kept_pictures.FirstRows(len(chosen))
    if len(chosen):
      some = sources.Part(test, test.split, chosen)
      for batch in dense.each_batch(
        self.setting, self.show, state.variables, some, dense_depth.EvalDepth()
      ):
        rows.add(batch.pop("mask"), **batch)
    kept_pictures.keep_depths(
      self.setting.workdir,
      *(rows.rows.get(name, []) for name in ("image", "depth", "found")),
    )


def measures_of(
  setting: Setting,
  compare: Callable[[Any, Any], SumsOf],
  variables: Any,
  split: sources.Source,
) -> dict[str, dict[str, float]]:
  """The five measures over all pixels of a split, by convention.

  Raises:
    NonFiniteError: they are not finite.
  """
  totals: dict[str, Any] = {name: {} for name in depth_metrics.CONVENTIONS}
  for batch in dense.each_batch(
    setting, compare, variables, split, dense_depth.EvalDepth()
  ):
    totals = {
      name: depth_metrics.add(totals[name], batch[name]) for name in totals
    }
  found = {
    name: depth_metrics.measures(total) for name, total in totals.items()
  }
  values = [list(x.values()) for x in found.values()]
  training.check_finite(bool(np.isfinite(values).all()), split)
  return found


def make_view(config: Any) -> dense_depth.TrainDepth:
  """How an example is prepared for training."""
  return dense_depth.TrainDepth(
    flip_probability=config.flip_probability,
    grayscale_probability=config.grayscale_probability,
    brightness=config.brightness,
    saturation=tuple(config.saturation),
    hue=config.hue,
  )


def make_module(setting: Setting) -> depth.Fcrn:
  """The network of a config on the encoder of a setting.

  Raises:
    UsageError: the decoder does not fit the encoder.
  """
  config, encoder = setting.config, setting.encoder.module
  stride, channels = encoder.output_stride, encoder.channels
  if stride != _STRIDE or channels % _STRIDE:
    raise UsageError(
      f"The encoder has an output stride of {stride} and {channels} channels; "
      f"FCRN's decoder needs an output stride of {_STRIDE}, which ResNets of "
      "four groups with the stem of ImageNet have, and a multiple of "
      f"{_STRIDE} channels."
    )
  return depth.Fcrn(
    grouping.of_groups(encoder),
    batch_groups=dense.batch_groups(config.batch_norm, setting),
    frozen_norm=dense.norm_of(config) == "frozen",
  )


def make_loss(module: depth.Fcrn, share: float) -> dense.Loss:
  """Reverse Huber loss of a batch, "image" and "depth"."""

  def judge(
    predicted: jax.Array, batch: Any
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    loss, error = depth.reverse_huber(predicted, batch["depth"], share)
    return loss, {"train/depth_error": error}

  return dense.of_images(module, judge)
