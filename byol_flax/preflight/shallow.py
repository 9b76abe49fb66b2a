"""A quick guess: one block of each group is compiled, the rest extrapolated."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from byol_flax import sharding, trees
from byol_flax.benchmarks import operations
from byol_flax.models import batch_norm, byol
from byol_flax.preflight import compiler
from byol_flax.preflight.compiler import Compiled
from byol_flax.pretrain import build
from byol_flax.slices import Slice

SAID = "extrapolated from one block of each group (about a tenth off)"


def extrapolate(
  config: Any,
  slice_: Slice,
  *,
  num_examples: int,
  num_classes: int,
  resident: tuple[int, ...] | None = None,
  tell: Callable[[str], None],
) -> Compiled:
  """Compiles the step of a shallow encoder and scales it to the whole one.

  Work grows with the operations of a forward pass, which are counted without
  compiling it. Traffic and cycles grow with the activations, and memory with
  those that are kept. The time of the cost analysis is scaled by the geometric
  mean of work and traffic. Collectives are left out.
  """
  data: dict[str, Any] = {
    "num_examples": num_examples,
    "num_classes": num_classes,
    "resident": resident,
  }
  mesh = sharding.make_mesh(compiler.devices_of(slice_))
  whole = build.build(config, mesh, **data)
  blocks = (1,) * len(whole.network.encoder.architecture.blocks)
  part = compiler.compile_step(config, slice_, **data, tell=tell, blocks=blocks)
  shallow = build.build(config, mesh, **data, blocks=blocks)
  size = config.augment.size
  work = forward_operations(whole.network, size) / forward_operations(
    shallow.network, size
  )
  held = activations(whole.network, size) / activations(shallow.network, size)
  kept = kept_for_gradient(whole.network, size) / kept_for_gradient(
    shallow.network, size
  )
  parameters = trees.count(whole.abstract_state.online.params)
  peak = int(part.peak_bytes * kept)
  # Augmentation does not grow with the encoder.
  views = part.augmentation or compiler.Cost()
  return dataclasses.replace(
    part,
    fits=part.fits and peak < slice_.hbm_bytes,
    parameters=parameters,
    peak_bytes=peak,
    argument_bytes=int(part.argument_bytes * parameters / part.parameters),
    temporary_bytes=int(part.temporary_bytes * kept),
    flops=views.flops + (part.flops - views.flops) * work,
    bytes_moved=views.bytes_moved
    + (part.bytes_moved - views.bytes_moved) * held,
    seconds=views.seconds
    + (part.seconds - views.seconds) * math.sqrt(work * held),
    cycle_seconds=views.cycle_seconds
    + (part.cycle_seconds - views.cycle_seconds) * held,
    collectives={},
  )


def activations(network: byol.ByolNetwork, size: int) -> int:
  """Numbers that BatchNorm hands on for one image of `size` pixels."""
  return sum(map(sum, _handed_on(network, size).values()))


def kept_for_gradient(network: byol.ByolNetwork, size: int) -> int:
  """How many of the `activations` are in memory when the gradient begins.

  With recomputation these are the outputs of all blocks, and all of the largest
  block.
  """
  if not network.encoder.recompute:
    return activations(network, size)
  parts = _handed_on(network, size)
  blocks = [sizes for name, sizes in parts.items() if "_block" in name]
  others = sum(sum(x) for name, x in parts.items() if "_block" not in name)
  return others + sum(x[-1] for x in blocks) + max(map(sum, blocks))


def _handed_on(network: byol.ByolNetwork, size: int) -> dict[str, list[int]]:
  """Part of the network -> how many numbers each of its BatchNorms hands on."""

  def handed_on(images: jax.Array) -> Any:
    _, collections = network.init_with_output(
      jax.random.key(0),
      images,
      train=False,
      mutable=True,
      capture_intermediates=lambda module, _: isinstance(
        module, batch_norm.BatchNorm
      ),
    )
    return collections["intermediates"]

  parts: dict[str, list[int]] = {}
  found = jax.eval_shape(handed_on, _image(size))
  for path, leaf in jax.tree.leaves_with_path(found):
    parts.setdefault(str(path[1].key), []).append(leaf.size)
  return parts


def forward_operations(network: byol.ByolNetwork, size: int) -> int:
  """Floating-point operations of a forward pass of one image."""
  variables = jax.eval_shape(
    lambda images: network.init(jax.random.key(0), images, train=False),
    _image(size),
  )
  return operations.count(
    lambda variables, images: network.apply(variables, images, train=False),
    variables,
    _image(size),
  )


def _image(size: int) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct((1, 1, size, size, 3), jnp.uint8)
