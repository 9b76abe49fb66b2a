"""One update of each dense network on ResNet-50 at its real input size.

Command: python -m tests.full_dense_models
One image each of noise, with a few true boxes, classes and depths. It prints
the losses, which must be finite, and how many arrays have not moved, which must
be none. Some minutes and 8 GB of memory on two cores.
"""

import sys
import time
from collections.abc import Mapping

import jax
import numpy as np

from byol_flax.evaluation import (
  dense,
  depth_network,
  detector,
  encoder,
  segmenter,
)
from byol_flax.sharding import make_mesh
from configs import byol, depth, detection, segmentation
from input_pipeline import dense_depth
from tests.evaluation import settings

CLASSES = {"segmentation": 21, "detection": 20}  # of Pascal VOC


def images(rng, height, width):
  return rng.integers(0, 256, (1, height, width, 3), np.uint8)


def cases(rng):
  """Name -> config, what makes the network, and a batch."""
  config = segmentation.get_config()
  size = config.crop_size
  yield (
    config,
    lambda x: segmenter.Segmenter.of(x, CLASSES["segmentation"]),
    {
      "image": images(rng, size, size),
      "classes": rng.integers(0, 21, (1, size, size)).astype(np.uint8),
    },
  )
  config = detection.get_config()
  canvas = detector.make_batches(config, config.max_boxes, 0).canvas(
    max(config.short_edges), portrait=False
  )
  corners = rng.uniform(0, 400, (1, 5, 2))
  boxes = np.concatenate(
    [corners, corners + rng.uniform(20, 300, (1, 5, 2))], -1
  )
  yield (
    config,
    lambda x: detector.Detector.of(x, CLASSES["detection"]),
    {
      "image": images(rng, canvas.height, canvas.width),
      "size": np.array([[canvas.height, canvas.width]], np.int32),
      "boxes": boxes.astype(np.float32),
      "label": rng.integers(0, 20, (1, 5)).astype(np.int32),
      "difficult": np.zeros((1, 5), bool),
    },
  )
  yield (
    depth.get_config(),
    depth_network.DepthNetwork.of,
    {
      "image": images(rng, *dense_depth.SEEN),
      "depth": rng.uniform(0.5, 9, (1, *dense_depth.PREDICTED)).astype(
        np.float32
      ),
    },
  )


def rate_of(config):
  """The first rate of a config."""
  if config.protocol == "segmentation":
    return config.learning_rates[0]
  return config.learning_rate


def report(config, make, batch, opened):
  """Does an update; returns whether all is finite and everything moved."""
  config.warmup_steps = 0  # else the first rate would be a thousandth
  setting = settings.setting(config, "unused", devices=1, opened=opened)
  network = make(setting)
  state = network.create(0)
  before = jax.device_get(state.params)
  begun = time.monotonic()
  sgd = dense.sgd_of(config, learning_rate=rate_of(config), seed=0)
  state, found = network.update(state, batch, sgd)
  found = {name: float(value) for name, value in found.items()}
  seconds = time.monotonic() - begun
  after: Mapping = jax.device_get(state.params)
  finite = all(map(np.isfinite, found.values())) and all(
    np.isfinite(x).all() for x in jax.tree.leaves(after)
  )
  moved = jax.tree.map(lambda x, y: bool((x != y).any()), before, after)
  still = [
    jax.tree_util.keystr(path)
    for path, has in jax.tree_util.tree_leaves_with_path(moved)
    if not has
  ]
  count = sum(x.size for x in jax.tree.leaves(after))
  shape = " × ".join(map(str, batch["image"].shape))
  print(
    f"{config.protocol}: {shape}, {count:,} parameters, loss "
    f"{found['train/loss']:.4f}, {seconds:.0f} s with compiling; "
    f"{'finite' if finite else 'NOT FINITE'}; "
    f"{len(still)} of {len(jax.tree.leaves(moved))} arrays did not move "
    f"{still[:3]}",
    flush=True,
  )
  return finite and not still


def main():
  """Reports on all three."""
  rng = np.random.default_rng(0)
  config = byol.get_config()
  opened = encoder.open_encoder(
    "random:byol_r50x1",
    make_mesh(jax.devices()[:1]),
    read_config=lambda text: config,
  )
  results = [report(*case, opened) for case in cases(rng)]
  return 0 if all(results) else 1


if __name__ == "__main__":
  sys.exit(main())
