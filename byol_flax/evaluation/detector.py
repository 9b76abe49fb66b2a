"""Trains a Faster R-CNN, and finds the boxes of whole splits."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from byol_flax import sharding
from byol_flax.evaluation import (
  average_precision,
  box_confusion,
  dense,
  kept_pictures,
  training,
)
from byol_flax.evaluation.protocol import Setting
from byol_flax.models import grouping
from byol_flax.models.detection import network, settings
from input_pipeline import bucketed
from input_pipeline.dense_boxes import EvalBoxes, TrainBoxes
from input_pipeline.dense_sources import DensePart
from input_pipeline.errors import UsageError

_LEAST_CANVAS = 64  # pixels of an edge; the weights do not depend on it


@dataclasses.dataclass(frozen=True)
class Detector:
  """What all trainings share, so that each shape is compiled once.

  Attributes:
    setting: of the evaluation.
    create: see `dense.make_creator`.
    update: see `dense.make_update`.
    find: (variables, batch) -> the fields of `average_precision.Boxes` by name,
      and "mask"; all boxes are in pixels of the file.
    show: (variables, batch) -> the same, but in pixels of the canvas, with
      "image" and "size".
  """

  setting: Setting
  create: Callable[[int], dense.DenseState]
  update: dense.Update
  find: Callable[[Any, Any], dict[str, jax.Array]]
  show: Callable[[Any, Any], dict[str, jax.Array]]

  @classmethod
  def of(cls, setting: Setting, num_classes: int) -> "Detector":
    """Compiles nothing yet."""
    config = setting.config
    module = make_module(setting, num_classes)
    whole = sharding.replicated(setting.mesh)

    def show(variables: Any, batch: Any) -> dict[str, jax.Array]:
      scale = _by_edge(batch["scale"])
      found: Any = module.apply(
        variables, batch["image"], batch["size"], method="detect"
      )
      return {
        "true": batch["boxes"] * scale,
        "label": batch["label"],
        "difficult": batch["difficult"],
        "found": found.boxes,
        "scores": found.scores,
        "found_label": found.label,
        **{name: batch[name] for name in ("mask", "image", "size")},
      }

    def find(variables: Any, batch: Any) -> dict[str, jax.Array]:
      found = show(variables, batch)
      del found["image"], found["size"]
      return {
        **found,
        "true": batch["boxes"],
        "found": found["found"] / _by_edge(batch["scale"]),
      }

    return cls(
      setting=setting,
      create=dense.make_creator(module, lambda: example(setting), setting),
      update=dense.make_update(
        make_loss(module),
        setting,
        moves=dense.trained_parts(
          batch_norm=config.batch_norm, encoder=config.encoder
        ),
        decays=decays,
      ),
      find=jax.jit(find, out_shardings=whole),
      show=jax.jit(show, out_shardings=whole),
    )

  def trial(
    self, train: DensePart, test: DensePart, seed: int, *, keeps: bool
  ) -> dict[str, Any]:
    """What a training by a seed reaches on test; `keeps` pictures of it."""
    name = f"seed-{seed}"

    def report() -> dict[str, Any]:
      state = self._train(name, train, seed)
      boxes = self.boxes(state, test)
      found = average_precision.summarise(boxes, test.num_classes)
      if keeps:
        self._keep(state, test, boxes, found)
      return {
        "ap50": found.ap50,
        "ap50_area": found.ap50_area,
        "ap50_95": found.ap50_95,
        "per_class": {
          name: None if np.isnan(value) else float(value)
          for name, value in zip(test.class_names, found.per_class, strict=True)
        },
      }

    return dense.trial(self.setting, name, report)

  def _train(self, name: str, train: DensePart, seed: int) -> dense.DenseState:
    config = self.setting.config
    batches = make_batches(config, train.most_boxes, seed)
    return dense.train(
      self.setting,
      name=name,
      source=train,
      stream=lambda source: batches.stream(source, train.sizes),
      row_bytes=batches.row_bytes,
      create_state=self.create,
      update=self.update,
      sgd=dense.sgd_of(config, learning_rate=config.learning_rate, seed=seed),
    )

  def boxes(
    self, state: dense.DenseState, split: DensePart
  ) -> average_precision.Boxes:
    """True and found boxes of all images of a split that can be read.

    Raises:
      NonFiniteError: what the network says of an image is not finite.
    """
    parts = []
    for found in self._each(self.find, state, split):
      counts = found.pop("mask")
      parts.append({name: x[counts] for name, x in found.items()})
    boxes = average_precision.Boxes(
      **{name: np.concatenate([x[name] for x in parts]) for name in parts[0]}
    )
    training.check_finite(bool(np.isfinite(boxes.scores).all()), split)
    return boxes

  def _each(
    self,
    function: Callable[[Any, Any], dict[str, jax.Array]],
    state: dense.DenseState,
    split: DensePart,
  ) -> Iterator[dict[str, np.ndarray]]:
    """What a function gives of each batch, landscapes before portraits."""
    config = self.setting.config
    for part, canvas in bucketed.evaluated(
      split, config.test_edge, config.longest_edge
    ):
      yield from dense.each_batch(
        self.setting,
        function,
        state.variables,
        part,
        EvalBoxes(
          # A true box that is left out would count as a false detection.
          max_boxes=max(split.most_boxes, 1),
          short_edge=config.test_edge,
          canvas=canvas,
        ),
      )

  def _keep(
    self,
    state: dense.DenseState,
    test: DensePart,
    boxes: average_precision.Boxes,
    found: average_precision.Summary,
  ) -> None:
    """Keeps what pictures need: some images of test, curves and counts."""
    setting, names = self.setting, test.class_names
    kept_pictures.keep_curves(
      setting.workdir,
      {
        name: (curve.recall, curve.precision, value)
        for name, curve, value in zip(
          names, found.curves, found.per_class.tolist(), strict=True
        )
      },
    )
    kept_pictures.keep_confusion(
      setting.workdir,
      box_confusion.count(boxes, len(names)),
      [*names, box_confusion.NOTHING],
      "boxes",
    )
    chosen = kept_pictures.spread(len(test), setting.config.pictures)
    if not len(chosen):
      return
    rows = kept_pictures.FirstRows(len(chosen))
    for batch in self._each(
      self.show, state, DensePart(test, test.split, chosen)
    ):
      rows.add(batch.pop("mask"), **batch)
    shown = rows.rows
    kept_pictures.keep_boxes(
      setting.workdir,
      images=shown.get("image", []),
      sizes=shown.get("size", []),
      boxes=shown.get("true", []),
      label=shown.get("label", []),
      difficult=shown.get("difficult", []),
      found_boxes=shown.get("found", []),
      found_scores=shown.get("scores", []),
      found_label=shown.get("found_label", []),
      class_names=names,
    )


def _by_edge(scale: jax.Array) -> jax.Array:
  """Factors of y and x [B, 2] -> of the four edges of boxes, [B, 1, 4]."""
  return jnp.tile(scale[:, None, ::-1], (1, 1, 2))


def make_batches(config: Any, most: int, seed: int) -> bucketed.Bucketed:
  """The training batches of a config, by one seed.

  Args:
    config: of the evaluation.
    most: boxes of an image in the training split, at most.
    seed: of order and draws.
  """
  return bucketed.Bucketed(
    batch_size=config.batch_size,
    seed=seed,
    short_edges=tuple(config.short_edges),
    longest_edge=config.longest_edge,
    buckets=config.buckets,
    transform=TrainBoxes(
      max_boxes=max(min(config.max_boxes, most), 1),
      flip_probability=config.flip_probability,
    ),
  )


def make_module(setting: Setting, num_classes: int) -> network.Detector:
  """The network of a config on the encoder of a setting.

  Raises:
    UsageError: the encoder cannot be divided.
  """
  config, encoder = setting.config, setting.encoder.module
  if len(encoder.groups) < 2:
    raise UsageError(
      "The encoder has one group of blocks; expected two or more, because a "
      "detector needs the last one for its proposals alone."
    )
  return network.Detector(
    encoder=grouping.of_groups(encoder),
    num_classes=num_classes,
    anchors=settings.Anchors(**config.anchors),
    rpn_rules=settings.Rpn(**config.rpn),
    roi_rules=settings.Roi(**config.roi),
    test_rules=settings.Test(**config.test),
    batch_groups=dense.batch_groups(config.batch_norm, setting),
    frozen_norm=dense.norm_of(config) == "frozen",
  )


def example(setting: Setting) -> tuple[dict[str, jax.Array], jax.Array]:
  """The least batch that the network can be initialised with, and a key."""
  rows = setting.mesh.size
  edges = (_LEAST_CANVAS, _LEAST_CANVAS)
  return {
    "image": jnp.zeros((rows, *edges, 3), jnp.uint8),
    "size": jnp.tile(jnp.array(edges), (rows, 1)),
    "boxes": jnp.zeros((rows, 1, 4), jnp.float32),
    "label": jnp.full((rows, 1), -1),
  }, jax.random.key(0)


def make_loss(module: network.Detector) -> dense.Loss:
  """The sum of the network's four losses, each of which is reported."""

  def loss(
    params: Any, batch_stats: Any, batch: Any, key: jax.Array
  ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    found: Any = module.apply(
      {"params": params, "batch_stats": batch_stats},
      batch,
      key,
      train=True,
      mutable=["batch_stats"],
    )
    values, changed = found
    report = {f"train/loss_{name}": value for name, value in values.items()}
    return sum(values.values()), (changed["batch_stats"], report)

  return loss


def decays(names: tuple[str, ...]) -> bool:
  """Detectron2's SOLVER.WEIGHT_DECAY_NORM is 0: decay spares BatchNorm."""
  return not dense.is_norm(names)
