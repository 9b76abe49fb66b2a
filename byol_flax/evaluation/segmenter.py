"""Trains an FCN, and measures it on whole splits."""

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
  kept_pictures,
  mean_iou,
  training,
)
from byol_flax.evaluation.protocol import Setting
from byol_flax.models import grouping, segmentation
from input_pipeline import (
  canvases,
  dense_classes,
  dense_sources,
  pipeline,
  sources,
)
from input_pipeline.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Segmenter:
  """What all trainings share, so that it is compiled once.

  Attributes:
    setting: of the evaluation.
    create: see `dense.make_creator`.
    update: see `dense.make_update`.
    count: (variables, batch) -> confusion, int32 [K, K], and whether all scores
      are finite, bool [].
    show: (variables, batch) -> the batch, and "found", uint8 [B, H, W].
  """

  setting: Setting
  create: Callable[[int], dense.DenseState]
  update: dense.Update
  count: Callable[[Any, Any], tuple[jax.Array, jax.Array]]
  show: Callable[[Any, Any], dict[str, jax.Array]]

  @classmethod
  def of(cls, setting: Setting, num_classes: int) -> "Segmenter":
    """Compiles nothing yet."""
    config, mesh = setting.config, setting.mesh
    module = make_module(setting, num_classes)
    whole = sharding.replicated(mesh)

    def example() -> tuple[jax.Array]:
      shape = (mesh.size, config.crop_size, config.crop_size, 3)
      return (jnp.zeros(shape, jnp.uint8),)

    def logits_of(variables: Any, batch: Any) -> jax.Array:
      found: Any = module.apply(variables, batch["image"], train=False)
      return jnp.asarray(found)

    def count(variables: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
      logits, true = logits_of(variables, batch), batch["classes"]
      finite = jnp.isfinite(logits).all(axis=(1, 2, 3)) | ~batch["mask"]
      found = jnp.argmax(logits, axis=-1)
      counts = mean_iou.confusion(found, true, batch["mask"], num_classes)
      return counts, finite.all()

    def show(variables: Any, batch: Any) -> dict[str, jax.Array]:
      found = jnp.argmax(logits_of(variables, batch), axis=-1)
      return {**batch, "found": found.astype(jnp.uint8)}

    return cls(
      setting=setting,
      create=dense.make_creator(module, example, setting),
      update=dense.make_update(
        make_loss(module),
        setting,
        moves=dense.trained_parts(batch_norm=config.batch_norm),
        decays=lambda names: True,
      ),
      count=jax.jit(count, out_shardings=whole),
      show=jax.jit(show, out_shardings=whole),
    )

  def training(
    self,
    name: str,
    source: sources.Source,
    shown: sources.Source,
    rate: float,
    seed: int,
  ) -> training.Training:
    """A training on `source`, whose curve shows how it does on `shown`."""
    config = self.setting.config
    view = make_view(config)

    def evaluate(state: dense.DenseState) -> dict[str, float]:
      found = self.measures(state, shown)
      return {
        f"segmentation/{shown.split}/{key}": found[key]
        for key in ("mean_iou", "pixel_accuracy")
      }

    return dense.make_training(
      self.setting,
      name=name,
      source=source,
      stream=functools.partial(
        pipeline.labelled_stream, transform=view, seed=seed
      ),
      row_bytes=view.row_bytes,
      create_state=self.create,
      update=self.update,
      sgd=dense.sgd_of(config, learning_rate=rate, seed=seed),
      evaluate=evaluate,
      evaluate_every=config.evaluate_every_steps,
    )

  def trial(
    self,
    train: sources.Source,
    test: sources.Source,
    rate: float,
    seed: int,
    *,
    keeps: bool,
  ) -> dict[str, Any]:
    """What a training on all of train reaches on test; `keeps` pictures."""
    name = f"seed-{seed}"

    def report() -> dict[str, Any]:
      what = self.training(name, train, test, rate, seed)
      state = training.run(what, self.setting)
      found = self.measures(state, test)
      if keeps:
        self._keep(state, test, np.array(found["confusion"]))
      return found

    return dense.trial(self.setting, name, report)

  def measures(
    self, state: dense.DenseState, split: sources.Source
  ) -> dict[str, Any]:
    """What `mean_iou.measures` says of a split, and "confusion".

    Raises:
      NonFiniteError: some scores are not finite.
    """
    counts, finite = np.zeros((), np.int64), True
    for some, one_finite in dense.each_batch(
      self.setting,
      self.count,
      state.variables,
      split,
      canvas(self.setting.config, split),
    ):
      counts = counts + some
      finite &= bool(one_finite)
    training.check_finite(finite, split)
    found = mean_iou.measures(counts, split.class_names)
    return {**found, "confusion": counts.tolist()}

  def _keep(
    self, state: dense.DenseState, test: sources.Source, counts: np.ndarray
  ) -> None:
    """Keeps what pictures need: some images of test, and all counts."""
    setting = self.setting
    chosen = kept_pictures.spread(len(test), setting.config.pictures)
    rows = kept_pictures.FirstRows(len(chosen))
    some = sources.Part(test, test.split, chosen)
    if len(chosen):
      for batch in dense.each_batch(
        setting,
        self.show,
        state.variables,
        some,
        canvas(setting.config, test),
      ):
        rows.add(batch.pop("mask"), **batch)
    kept_pictures.keep_classes(
      setting.workdir,
      rows.rows.get("image", []),
      rows.rows.get("classes", []),
      rows.rows.get("found", []),
      test.class_names,
      counts,
    )


def make_view(config: Any) -> dense_classes.ScaledCrop:
  """How an example is prepared for training."""
  return dense_classes.ScaledCrop(
    size=config.crop_size,
    scales=tuple(config.scales),
    flip_probability=config.flip_probability,
  )


def make_module(setting: Setting, num_classes: int) -> segmentation.Fcn:
  """The network of a config on the encoder of a setting.

  Raises:
    UsageError: the crop does not fit the stride of the network.
  """
  config = setting.config
  encoder = grouping.of_groups(setting.encoder.module).clone(
    dilate_last=config.output_stride == 16
  )
  stride = encoder.output_stride
  if config.crop_size % stride != 1 % stride:
    above = -(-config.crop_size // stride) * stride + 1
    raise UsageError(
      f"crop_size is {config.crop_size}; expected one pixel more than a "
      f"multiple of the network's output stride, {stride}, such as {above}. "
      "Only then do the places of its map stand for pixels of the image."
    )
  return segmentation.Fcn(
    encoder,
    num_classes=num_classes,
    batch_groups=dense.batch_groups(config.batch_norm, setting),
    frozen_norm=dense.norm_of(config) == "frozen",
  )


def make_loss(module: segmentation.Fcn) -> dense.Loss:
  """Cross-entropy of a batch, "image" and "classes"."""

  def judge(
    logits: jax.Array, batch: Any
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    loss, accuracy = segmentation.cross_entropy(logits, batch["classes"])
    return loss, {"train/pixel_accuracy": accuracy}

  return dense.of_images(module, judge)


def canvas(config: Any, split: sources.Source) -> pipeline.RowTransform:
  """How images of a split are shown to a trained network.

  Raises:
    UsageError: an image is too large to be shown whole.
  """
  size = config.crop_size
  if config.inference == "centre_crop":
    return dense_classes.CentreCrop(height=size, width=size)
  # One more than a multiple of every output stride, as a crop has.
  height, width = (
    canvases.rounded_up(side - 1) + 1
    for side in dense_sources.sizes_of(split).max(axis=0).tolist()
  )
  if height * width > mean_iou.MOST_PIXELS:
    raise UsageError(
      f"inference=whole needs {height} × {width} pixels for the images of "
      f"{split.split}, over {mean_iou.MOST_PIXELS:,}; expected smaller images, "
      "or --config.inference=centre_crop."
    )
  return dense_classes.WholeImage(height=height, width=width)
