"""Memory that importing a large checkpoint of BYOL's authors takes.

Command: python -m tests.weights_memory
Writes a file of some 2 GB as the authors' libraries did, a piece at a time:
ResNet-50 of twice the width with wide heads, both networks and the momentum.
Then another process reads every array of it and keeps them all. The most
memory that it ever held is compared with the size of the file.
"""

import argparse
import functools
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from byol_flax.benchmarks import memory
from byol_flax.models import byol
from byol_flax.weights import arrays, deepmind
from tests.weights import deepmind_files, made

MOST = 1.5  # times the size of the file
PIECE = np.random.default_rng(0).standard_normal(1 << 18, np.float32).tobytes()


def lazily(leaf):
  """A leaf of a network that is drawn while it is written."""
  if leaf.dtype == np.int32:
    return np.array(82, np.int32)
  size = leaf.size * leaf.dtype.itemsize

  def pieces():
    for begin in range(0, size, len(PIECE)):
      yield PIECE[: size - begin]

  return deepmind_files.Lazy(leaf.shape, pieces)


def network_of(model):
  """Variables of a network that are in no memory."""
  network = byol.make_network(**model, num_classes=1000, dtype=jnp.float32)
  images = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), jnp.uint8)
  shapes = jax.eval_shape(
    functools.partial(network.init, train=True), jax.random.key(0), images
  )
  return jax.tree.map(lazily, shapes)


def write(path, width, hidden_size):
  """Writes the checkpoint."""
  model = made.model_with(architecture="resnet50", width=width)
  for head in ("projector", "predictor"):
    model[head] |= {"hidden_size": hidden_size, "output_size": 256}
  networks = {
    name: deepmind_files.haiku_trees(network_of(model))
    for name in ("online", "target")
  }
  momentum = deepmind_files.haiku_trees(network_of(model))["params"]
  deepmind_files.write(path, networks, momentum, 41)


def imported(path, connection):
  """Sends the bytes of all arrays, and the most that this process held."""
  begin = time.monotonic()
  found = deepmind.read(path)
  kept = [
    arrays.read(tree) for tree in (*found.networks.values(), found.momentum)
  ]
  size = sum(leaf.nbytes for tree in kept for _, leaf in arrays.flat(tree))
  seconds = time.monotonic() - begin
  connection.send((size, memory.of_process("VmHWM"), seconds, found.model))


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--width", type=float, default=2.0)
  parser.add_argument("--hidden_size", type=int, default=8192)
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    path = str(pathlib.Path(folder) / "pretrain.pkl")
    write(path, options.width, options.hidden_size)
    size = os.path.getsize(path)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=imported, args=(path, there))
    process.start()
    there.close()
    held, peak, seconds, model = here.recv()
    process.join()
  print(
    f"{model['encoder']['architecture']}, width {model['encoder']['width']}: "
    f"a file of {size / 1e9:.2f} GB with {held / 1e9:.2f} GB of arrays was "
    f"read in {seconds:.0f} s; the process held at most {peak / 1e9:.2f} GB, "
    f"{peak / size:.2f} times the file (bound: {MOST})"
  )
  sys.exit(peak > MOST * size)


if __name__ == "__main__":
  main()
