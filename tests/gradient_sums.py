"""What summing gradients over devices in bfloat16 does to them.

Command: JAX_PLATFORMS=cpu python -m tests.gradient_sums

Real gradients of BYOL in float32, with BatchNorm over the whole batch: digits,
and crops of two photographs, at the start and after some updates. Each weight's
gradient is taken apart into the parts of so many devices, and these are added
up in the ways that devices could. What matters is what is left against the
exact sum, for each weight: the relative error |s - s0| / |s0|, the change of
size |s| / |s0| - 1, and the angle between s and s0. LARS gives every weight's
update a size of its own, so the angle is what training sees.

Every way starts from parts rounded to bfloat16, as a convolution on bfloat16
activations leaves them. "float32" adds these in float32, as the authors do.
Three ways round after each addition: "pairs" adds pairs, then pairs of pairs;
"torus" adds one device after the other along the rows of a torus, then along
its columns, as rings of devices do; "ring" goes once through all devices. For
comparison, "activations" is a network with bfloat16 activations whose gradients
are added in float32.
"""

import argparse
import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_sample_images

from byol_flax import sharding
from byol_flax.benchmarks import photographs
from byol_flax.models import layers
from byol_flax.pretrain import build, inputs, objective
from configs import byol, byol_cifar10, byol_digits
from input_pipeline import pipeline, sources

IMAGES = {32: 8, 512: 1}  # of each device: as in the paper, and what fits here
BYOL = objective.Objective(**byol.get_config().objective)
TORUS = {32: (8, 4), 512: (32, 16)}  # cores of a v3-32 and a v3-512


class TwoPhotographs(photographs.Photographs):
  """Those that scikit-learn carries, again and again; see `sources.Source`."""

  num_classes = 2
  class_names = ("temple", "flower")

  def __init__(self):
    self._images = load_sample_images().images

  def __getitem__(self, i):
    return {"image": self._images[i % 2], "label": np.int32(i % 2)}


@dataclasses.dataclass(frozen=True)
class Case:
  """A network and its images.

  Attributes:
    name: for the table.
    config: as made by configs/byol.py.
    source: of images.
  """

  name: str
  config: Any
  source: Any


def cases():
  digits = byol_digits.get_config()
  source = sources.open_source("digits", "train", None)
  yield Case("digits", digits, source)
  narrow = byol_cifar10.get_config()
  narrow.model.encoder.width = 0.25
  narrow.model.projector.update(hidden_size=256, output_size=64)
  narrow.model.predictor.update(hidden_size=256, output_size=64)
  yield Case("photographs", narrow, TwoPhotographs())


def batches(case, rows):
  """Endless (images uint8 [rows, 2, S, S, 3], labels int32 [rows])."""
  source = sources.ReadableSource(case.source)
  stream = pipeline.view_stream(
    source, inputs.make_two_views(case.config.augment), 0
  )
  for start in range(0, 10**9, rows):
    drawn = [stream[i] for i in range(start, start + rows)]
    views = [np.stack([x[name] for x in drawn]) for name in ("view1", "view2")]
    yield np.stack(views, 1), np.array([x["label"] for x in drawn], np.int32)


def trained(case, updates):
  """The network and its state after so many updates of 64 images."""
  case.config.update(batch_size=64, dtype="float32")
  mesh = sharding.make_mesh(jax.devices()[:1])
  built = build.build(
    case.config,
    mesh,
    num_examples=len(case.source),
    num_classes=case.source.num_classes,
  )
  state, ready = built.create_state(), batches(case, 64)
  for _ in range(updates):
    images, labels = next(ready)
    batch = {"view1": images[:, 0], "view2": images[:, 1], "label": labels}
    state, _ = built.step_fn(state, sharding.put_batch(mesh, batch))
  return built.network, state


def _arguments(state, images, labels):
  """Those of `objective.objective` after the network."""
  online, target = state.online, state.target
  stats = {"online": online.batch_stats, "target": target.batch_stats}
  return online.params, target.params, stats, images, labels


def whole_gradient(network, *arguments):
  """Gradient of the online network's weights over the whole batch."""
  gradient = jax.grad(objective.objective, argnums=2, has_aux=True)
  whole = jax.jit(gradient, static_argnums=(0, 1))
  return whole(network, BYOL, *arguments)[0]


def parts_of_gradient(network, state, images, labels, devices):
  """Path of a weight -> gradient that each device's rows add, [devices, ...].

  The gradient of a layer's weight is linear in the gradient at its output, so
  it falls into parts by rows; BatchNorm ties the rows together before that.
  """
  arguments = _arguments(state, images, labels)
  taps, shapes = {}, {}

  def loss(added, arguments, record=False):
    inputs_of = {}

    def watch(call, args, kwargs, context):
      y, module = call(*args, **kwargs), context.module
      if isinstance(module, layers.Conv | layers.Linear) and (
        module.path not in inputs_of  # the online network comes first
      ):
        inputs_of[module.path] = args[0]
        if record:
          taps[module.path] = module.clone(parent=None)
          shapes[module.path] = y
        else:
          y = y + added[module.path]
      return y

    with nn.intercept_methods(watch):
      value, _ = objective.objective(network, BYOL, *arguments)
    return value, inputs_of

  jax.eval_shape(lambda a: loss({}, a, record=True), arguments)
  zeros = {path: jnp.zeros(y.shape, y.dtype) for path, y in shapes.items()}
  at_outputs, inputs_of = jax.jit(jax.grad(loss, has_aux=True))(
    zeros, arguments
  )
  parts = {}
  for path, layer in taps.items():
    params = functools.reduce(lambda x, name: x[name], path, arguments[0])

    def part(x, g, params=params, layer=layer):
      _, pull = jax.vjp(lambda p: layer.apply({"params": p}, x), params)
      return pull(g)[0]["kernel"]

    rows = [
      np.split(np.asarray(x), devices)
      for x in (inputs_of[path], at_outputs[path])
    ]
    part = jax.jit(part)
    parts["/".join(path)] = np.stack(
      [np.asarray(part(x, g)) for x, g in zip(*rows, strict=True)]
    )
  return parts


def rounded(x):
  return x.astype(jnp.dtype(jnp.bfloat16)).astype(np.float32)


def ring(parts):
  """[n, ...] -> [...]: one after the other, rounded each time."""
  total = parts[0]
  for part in parts[1:]:
    total = rounded(total + part)
  return total


def torus(parts):
  rows, columns = TORUS[len(parts)]
  by_row = parts.reshape(columns, rows, *parts.shape[1:])
  return ring(np.stack([ring(row) for row in by_row]))


def pairs(parts):
  while len(parts) > 1:
    parts = rounded(parts[::2] + parts[1::2])
  return parts[0]


WAYS = {
  "float32": lambda parts: parts.sum(0, dtype=np.float32),
  "pairs": pairs,
  "torus": torus,
  "ring": ring,
}


def compare(found, exact):
  """Relative error, change of size, angle in degrees."""
  found, exact = found.astype(np.float64).ravel(), exact.ravel()
  size, other = np.linalg.norm(exact), np.linalg.norm(found)
  error = np.linalg.norm(found - exact) / size
  # Of unit vectors: an arc cosine would be rounding.
  apart = np.linalg.norm(found / other - exact / size)
  angle = 2 * np.degrees(np.arcsin(min(1.0, apart / 2)))
  return error, other / size - 1, angle


def measure(case, updates, devices):
  """Rows (way, median and worst of error, size and angle over weights)."""
  network, state = trained(case, updates)
  images, labels = next(batches(case, devices * IMAGES[devices]))
  arguments = _arguments(state, images, labels)
  parts = parts_of_gradient(network, state, images, labels, devices)
  exact = {path: x.sum(0, dtype=np.float64) for path, x in parts.items()}

  def weights_of(tree):
    return {
      "/".join(str(key.key) for key in path[:-1]): np.asarray(leaf, np.float32)
      for path, leaf in jax.tree.leaves_with_path(tree)
      if path[-1].key == "kernel"
    }

  whole = weights_of(whole_gradient(network, *arguments))
  assert whole.keys() == exact.keys()
  # The parts do add up to the gradient.
  assert max(compare(whole[p], exact[p])[0] for p in exact) < 1e-3
  found = {
    way: {path: add(rounded(x)) for path, x in parts.items()}
    for way, add in WAYS.items()
  }
  case.config.dtype = "bfloat16"
  narrow = build.build(
    case.config,
    sharding.make_mesh(jax.devices()[:1]),
    num_examples=len(case.source),
    num_classes=case.source.num_classes,
  ).network
  found["activations"] = weights_of(whole_gradient(narrow, *arguments))
  for way, sums in found.items():
    each = np.array([compare(sums[path], exact[path]) for path in exact])
    yield way, np.median(np.abs(each), 0), np.abs(each).max(0)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--updates", type=int, default=200)
  options = parser.parse_args()
  print("median and worst weight: error, change of size, angle in degrees")
  for case in cases():
    for updates in (0, options.updates):
      for devices in IMAGES:
        print(f"{case.name}, {updates} updates, {devices} summands")
        for way, median, worst in measure(case, updates, devices):
          print(
            f"  {way:12}"
            + "".join(
              f" {m:.2%} {w:.2%} "
              for m, w in zip(median[:2], worst[:2], strict=True)
            )
            + f" {median[2]:.3f}° {worst[2]:.3f}°",
            flush=True,
          )


if __name__ == "__main__":
  main()
