"""The two stages, their losses, and the network that they make up."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax import sharding, trees
from byol_flax.models import initializers, resnet
from byol_flax.models.detection import (
  anchors,
  box_head,
  boxes,
  losses,
  network,
  rpn,
  settings,
)
from configs import detection as detection_config
from tests.models.detection import made


def small_rules():
  return {
    "anchors": settings.Anchors((8, 16, 32), (0.5, 1.0, 2.0)),
    "rpn_rules": settings.Rpn(32, 0.5, 0.7, 0.3, 0.7, 200, 50, 150, 40),
    "roi_rules": settings.Roi(32, 0.25, 0.5, pool_size=6, sampling_ratio=2),
    "test_rules": settings.Test(score=0.05, nms_iou=0.5, detections=20),
  }


def make_encoder(name, stem, dtype=jnp.float32):
  types = {"dtype": dtype, "param_dtype": jnp.float32}
  return resnet.ResNet(
    architecture=resnet.architecture_of(name),
    width=1,
    stem=stem,
    shortcut="projection",
    padding="same",
    zero_init_last=False,
    recompute=False,
    input_scaling="imagenet",
    kernel_init=initializers.fan_in,
    norm=resnet.make_norm(decay=0.9, epsilon=1e-5, **types),
    **types,
  )


def small_detector(**changes):
  given = {"batch_groups": 1, "frozen_norm": False, **small_rules(), **changes}
  # Its map has every fourth pixel: fewer anchors than with the small stem.
  encoder = make_encoder("basic:1-1:16-32:8", "imagenet")
  return network.Detector(encoder=encoder, num_classes=3, **given)


def small_batch(rows=8):
  rng = np.random.default_rng(0)
  corner = rng.uniform(0, 20, (rows, 3, 2))
  size = rng.uniform(8, 24, (rows, 3, 2))
  label = rng.integers(0, 3, (rows, 3))
  label[:, 2] = -1
  label[3] = -1  # nothing to find
  return {
    "image": rng.integers(0, 256, (rows, 48, 64, 3)).astype(np.uint8),
    "size": rng.integers(40, 49, (rows, 2)).astype(np.int32),
    "boxes": np.concatenate([corner, corner + size], -1).astype(np.float32),
    "label": label.astype(np.int32),
  }


@functools.cache
def small_variables():
  batch = {name: x[:1] for name, x in small_batch().items()}
  init = functools.partial(small_detector().init, train=True)
  return jax.jit(init)(jax.random.key(0), batch, jax.random.key(1))


# Of torchvision's ResNet-50 (25,557,032) without its last layer, 2048 × 1000.
RESNET50 = 25_557_032 - 2048 * 1000 - 1000
PARTS = {  # paper.md §7.2, 20 classes
  "encoder": RESNET50,
  # 3×3 with 1024 channels; 15 anchors with a score and four deltas.
  "rpn": 9 * 1024**2 + 1024 + 15 * (1024 + 1) + 60 * (1024 + 1),
  # BatchNorm, 21 classes with the background, four deltas for each of 20.
  "box": 2 * 2048 + 21 * (2048 + 1) + 80 * (2048 + 1),
}


@pytest.mark.slow
def test_sizes_of_the_whole_network():
  config = detection_config.get_config()
  detector = network.Detector(
    encoder=make_encoder("resnet50", "imagenet", jnp.bfloat16),
    num_classes=20,
    anchors=settings.Anchors(**config.anchors),
    rpn_rules=settings.Rpn(**config.rpn),
    roi_rules=settings.Roi(**config.roi),
    test_rules=settings.Test(**config.test),
    batch_groups=1,
    frozen_norm=False,
  )
  assert detector.stride == 16
  batch = {
    "image": jnp.zeros((1, 800, 1344, 3), jnp.uint8),
    "size": jnp.array([[800, 1333]]),
    "boxes": jnp.zeros((1, config.max_boxes, 4)),
    "label": jnp.zeros((1, config.max_boxes), jnp.int32),
  }
  variables = jax.eval_shape(
    functools.partial(detector.init, train=True),
    jax.random.key(0),
    batch,
    jax.random.key(1),
  )
  counts = {
    name: trees.count(part) for name, part in variables["params"].items()
  }
  assert counts == PARTS
  assert sum(counts.values()) == 33_234_160
  found = jax.eval_shape(
    functools.partial(detector.apply, method="detect"),
    variables,
    batch["image"],
    batch["size"],
  )
  assert jax.tree.map(jnp.shape, found) == ((1, 100, 4), (1, 100), (1, 100))
  # Every sixteenth pixel has 15 anchors.
  shapes = jax.eval_shape(
    lambda v, x: detector.apply(
      v, x, method=lambda self, x: self.rpn(self._c4(x, train=False))
    ),
    variables,
    batch["image"],
  )
  assert shapes[1].shape == (1, 50 * 84 * 15, 4)


def loss_and_gradients(detector, variables, batch, mesh):
  def loss(params, batch):
    found, changed = detector.apply(
      {"params": params, "batch_stats": variables["batch_stats"]},
      batch,
      jax.random.key(3),
      train=True,
      mutable=["batch_stats"],
    )
    return sum(found.values()), (found, changed["batch_stats"])

  step = jax.jit(
    jax.value_and_grad(loss, has_aux=True),
    out_shardings=sharding.replicated(mesh),
  ).lower(
    sharding.gather(mesh, variables["params"]), sharding.put_batch(mesh, batch)
  )
  compiled = step.compile()
  (_, (found, stats)), grads = compiled(
    sharding.gather(mesh, variables["params"]), sharding.put_batch(mesh, batch)
  )
  return compiled.as_text(), jax.device_get((found, stats, grads))


@pytest.mark.slow
def test_eight_devices_find_the_losses_and_gradients_of_one():
  detector, variables = small_detector(), small_variables()
  texts, values = zip(
    *(
      loss_and_gradients(
        detector,
        variables,
        small_batch(),
        sharding.make_mesh(jax.devices()[:devices]),
      )
      for devices in (1, 8)
    ),
    strict=True,
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), *values
  )
  # All layers learn.
  assert all(np.any(g != 0) for g in jax.tree.leaves(values[0][2]))
  # Images stay on their devices, and no loop waits for another device.
  exchanges = [
    line
    for line in texts[1].splitlines()
    if re.search(r" (all-|collective-|reduce-scatter)\S*\(", line)
  ]
  assert exchanges
  for line in exchanges:
    assert " all-reduce" in line, line
    assert "while" not in line, line


@pytest.mark.slow
def test_groups_of_images_have_their_own_statistics():
  variables, batch = small_variables(), small_batch()
  halves = [{n: x[i : i + 4] for n, x in batch.items()} for i in (0, 4)]

  @functools.partial(jax.jit, static_argnums=0)
  def logits(groups, batch):
    return small_detector(batch_groups=groups).apply(
      variables,
      batch["image"],
      jnp.asarray(batch["boxes"]),
      mutable=["batch_stats"],
      method=lambda self, images, boxes: self._of_each(
        self._c4(images, True), boxes, True
      ),
    )[0][0]

  apart = np.concatenate([logits(1, half) for half in halves])
  np.testing.assert_allclose(logits(2, batch), apart, atol=1e-4)
  assert np.abs(logits(1, batch) - apart).max() > 1e-3


@pytest.mark.slow
def test_frozen_averages_stay_and_those_of_the_head_move():
  @jax.jit
  def averages(batch):
    _, changed = small_detector(frozen_norm=True).apply(
      small_variables(),
      batch,
      jax.random.key(0),
      train=True,
      mutable=["batch_stats"],
    )
    return changed["batch_stats"]

  old = small_variables()["batch_stats"]
  new = averages(small_batch())
  jax.tree.map(np.testing.assert_array_equal, new["encoder"], old["encoder"])
  # A channel that ReLU never lets through keeps its mean of 0.
  moved = new["box"]["norm"]["mean"] != old["box"]["norm"]["mean"]
  assert np.mean(moved) > 0.8


@pytest.mark.slow
def test_detections_are_within_their_images():
  found = jax.jit(functools.partial(small_detector().apply, method="detect"))(
    small_variables(), small_batch()["image"], small_batch()["size"]
  )
  some = np.asarray(found.label) >= 0
  assert some.any()
  limits = np.tile(small_batch()["size"][:, ::-1], 2)[:, None]
  assert (found.boxes >= 0).all()
  assert (found.boxes <= limits).all()
  assert (np.asarray(found.scores)[some] > 0.05).all()
  assert (np.diff(found.scores, axis=1) <= 0).all()


AROUND = {"stride": 8, "sizes": (16, 24), "ratios": (0.5, 1.0)}


@pytest.mark.slow
def test_padding_of_a_canvas_yields_no_proposals_and_no_targets():
  size = jnp.array([24, 30])  # a map of 3 × 4
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(5, 6, 4)).astype(np.float32)
  deltas = rng.normal(0, 0.2, (5, 6, 4, 4)).astype(np.float32)
  true = made.boxes(4, seed=2, empty=0) / 4
  # All are drawn, so that the draw does not matter.
  rules = settings.Rpn(10**6, 1.0, 0.5, 0.2, 0.7, 0, 0, 0, 0)
  found = []
  for h, w in ((5, 6), (3, 4)):
    around = anchors.make_anchors((h, w), **AROUND)
    proposals, some = jax.jit(
      lambda *of_map, around=around: rpn.propose(
        *of_map, around, size, before=40, after=40, threshold=0.7
      )
    )(logits[:h, :w].reshape(-1), deltas[:h, :w].reshape(-1, 4))
    place, kind, targets = jax.device_get(
      jax.jit(
        lambda true, around=around: rpn.draw_targets(
          jax.random.key(0), around, size, true, jnp.ones(4, bool), rules
        )
      )(true)
    )
    targets = np.where(kind[:, None] == 1, targets, 0)  # mean nothing
    rows = np.concatenate([around[place], kind[:, None], targets], axis=1)
    found.append((proposals[some], sorted(rows[kind >= 0].tolist())))
  assert 5 < len(found[0][0]) < 40
  assert {row[4] for row in found[0][1]} == {0, 1}
  for padded, own in zip(*found, strict=True):
    np.testing.assert_allclose(padded, own, atol=1e-6)


@pytest.mark.slow
def test_true_boxes_are_proposals_and_padding_is_not():
  true = jnp.asarray(made.boxes(3, seed=3, empty=0))
  label = jnp.array([4, -1, 2])
  proposals = true + 0.5
  draw = jax.jit(
    functools.partial(
      box_head.draw_targets,
      num_classes=7,
      rules=settings.Roi(8, 0.5, 0.5, pool_size=1, sampling_ratio=1),
    )
  )
  found = draw(
    jax.random.key(0), proposals, jnp.array([True, True, False]), true, label
  )
  drawn = [
    (tuple(box), own)
    for box, own in zip(found.boxes.tolist(), found.label.tolist(), strict=True)
    if own >= 0
  ]
  near = [tuple(box) for box in np.asarray(proposals).tolist()]
  own = [tuple(box) for box in np.asarray(true).tolist()]
  # The second proposal stands for nothing, as its true box is padding.
  assert sorted(drawn) == sorted(
    [(near[0], 4), (near[1], 7), (own[0], 4), (own[2], 2)]
  )
  place = found.boxes.tolist().index(list(near[0]))
  np.testing.assert_allclose(
    boxes.decode(found.boxes[place], found.deltas[place], box_head.WEIGHTS),
    true[0],
    rtol=1e-4,
    atol=1e-4,
  )


@pytest.mark.slow
def test_losses_with_loops():
  rng = np.random.default_rng(4)
  logits, deltas, targets = (
    rng.normal(size=shape).astype(np.float32)
    for shape in ((2, 5), (2, 5, 4), (2, 5, 4))
  )
  kind = np.array([[1, 1, 0, 0, -1], [1, 0, 0, -1, -1]])
  targets[kind != 1] = np.inf  # means nothing there
  entropy, distance = 0.0, 0.0
  for i, j in np.ndindex(2, 5):
    p = 1 / (1 + np.exp(-logits[i, j]))
    if kind[i, j] >= 0:
      entropy -= np.log(p if kind[i, j] else 1 - p)
    if kind[i, j] == 1:
      distance += np.abs(deltas[i, j] - targets[i, j]).sum()
  found = losses.of_proposals(
    *map(jnp.asarray, (logits, deltas, kind, targets))
  )
  np.testing.assert_allclose(found, [entropy / 10, distance / 10], rtol=1e-5)

  classes = 3
  logits = rng.normal(size=(2, 5, classes + 1)).astype(np.float32)
  deltas = rng.normal(size=(2, 5, classes, 4)).astype(np.float32)
  targets = rng.normal(size=(2, 5, 4)).astype(np.float32)
  label = np.array([[2, 0, 3, 3, -1], [1, 3, 3, -1, -1]])  # 3: background
  targets[(label < 0) | (label == 3)] = np.nan
  entropy, distance = 0.0, 0.0
  for i, j in np.ndindex(2, 5):
    k = label[i, j]
    if k >= 0:
      entropy -= logits[i, j, k] - np.log(np.exp(logits[i, j]).sum())
    if 0 <= k < classes:
      distance += np.abs(deltas[i, j, k] - targets[i, j]).sum()
  arguments = [jnp.asarray(x) for x in (logits, deltas, label, targets)]
  np.testing.assert_allclose(
    losses.of_boxes(*arguments), [entropy / 7, distance / 7], rtol=1e-5
  )
  slope = jax.grad(
    lambda d: losses.of_boxes(arguments[0], d, *arguments[2:])[1]
  )
  slope = slope(arguments[1])
  assert np.isfinite(slope).all()
  assert (np.abs(slope) > 0).sum() == 3 * 4
