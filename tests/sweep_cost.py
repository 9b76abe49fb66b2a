"""What a sweep of five learning rates costs beside one, in turns.

Command: python -m tests.sweep_cost --batch-size=16 --updates=6

One update of linear evaluation of ResNet-50 at 224 pixels with 1,000 classes,
on images that lie on the devices. Prints milliseconds (the shortest of all
updates) and their ratio.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from byol_flax import sharding
from byol_flax.evaluation import encoder, linear_heads
from configs import byol_r50x1

CLASSES = 1000


def make_update(opened, heads):
  """() -> None: one update of so many heads."""
  step = jax.jit(
    linear_heads.make_step(
      opened,
      [linear_heads.Head(0.1 * (h + 1), False) for h in range(heads)],
      decay=lambda step: jnp.ones(()),
      momentum=0.9,
      alpha=20.0,
      beta=0.01,
    ),
    donate_argnums=0,
  )
  state = linear_heads.create_state(
    heads, 2048, CLASSES, seed=0, dtype=jnp.float32
  )

  def update(batch):
    nonlocal state
    state, report = step(state, opened.variables, batch)
    jax.block_until_ready((state, report))

  return update


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--batch-size", type=int, default=16)
  parser.add_argument("--updates", type=int, default=6)
  options = parser.parse_args()
  mesh = sharding.make_mesh(jax.devices()[:1])
  opened = encoder.open_encoder(
    "random:x", mesh, read_config=lambda path: byol_r50x1.get_config()
  )
  rng = np.random.default_rng(0)
  batch = {
    "image": rng.integers(0, 256, (options.batch_size, 224, 224, 3), np.uint8),
    "label": rng.integers(0, CLASSES, options.batch_size).astype(np.int32),
  }
  batch = jax.device_put(batch)
  updates = {heads: make_update(opened, heads) for heads in (1, 5)}
  seconds = {heads: [] for heads in updates}
  for _ in range(1 + options.updates):
    for heads, update in updates.items():
      begun = time.monotonic()
      update(batch)
      seconds[heads].append(time.monotonic() - begun)
  best = {heads: min(times[1:]) for heads, times in seconds.items()}
  for heads, least in best.items():
    print(f"{heads} head(s): {1000 * least:.0f} ms")
  print(f"five / one: {best[5] / best[1]:.3f}")


if __name__ == "__main__":
  main()
