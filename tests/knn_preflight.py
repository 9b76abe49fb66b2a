"""How much memory of a TPU the kNN of ImageNet takes, by the TPU compiler.

Command: JAX_PLATFORMS=cpu python -m tests.knn_preflight [SLICE ...]
Compiles the programs of configs/knn.py for v3-8 and v3-32, unless told
otherwise, without a TPU: the encoder represents a batch of 224 pixels; the
batch is written to the bank; the bank is scaled to unit length; 200 neighbours
of each query of a batch are looked for. The bank holds the representations of
ImageNet's training images by ResNet-50 and by ResNet-200 ×2. Prints GiB of a
device: what a program is given, and what there is at most. Both the bank and
the encoder stay on the devices throughout, so each program has beside it what
it is not given. Four minutes on two cores.
"""

import dataclasses
import math
import sys
from typing import Any

import jax
import jax.numpy as jnp

from byol_flax import sharding, slices
from byol_flax.commands import libraries
from byol_flax.evaluation import encoder as encoder_lib
from byol_flax.evaluation import features, neighbours, rows
from byol_flax.models import byol, precision, resnet
from byol_flax.preflight import compiler
from byol_flax.slices import GIB
from configs import byol_r50x1, byol_r200x2

_IMAGES, _BATCH, _NEIGHBOURS = 1_281_167, 512, 200
_ENCODERS = {"ResNet-50": byol_r50x1, "ResNet-200 ×2": byol_r200x2}


@dataclasses.dataclass(frozen=True)
class Memory:
  """Of one device, in GiB.

  Attributes:
    given: arguments of the program.
    most: what is in use at most, arguments and all.
    beside: what else lies on the device meanwhile.
  """

  given: float
  most: float
  beside: float


def main(*names: str) -> None:
  """Prints the table of each slice."""
  libraries.compile_for_tpus()
  for name in names or ("v3-8", "v3-32"):
    slice_ = slices.find(name)
    mesh = sharding.make_mesh(compiler.devices_of(slice_))
    room = slice_.hbm_bytes / GIB
    print(f"{name}: {slice_.devices} devices of {room:.2f} GiB")
    for encoder, module in _ENCODERS.items():
      found = measure(module.get_config(), mesh)
      for program, memory in found.items():
        print(
          f"  {encoder}, {program}: given {memory.given:.2f}, at most "
          f"{memory.most:.2f}, with {memory.beside:.2f} beside it"
        )
      most = max(memory.most + memory.beside for memory in found.values())
      verdict = "fits" if most < room else "does not fit"
      print(f"  {encoder}: {most:.2f} GiB at most, {verdict}", flush=True)


def measure(config: Any, mesh: Any) -> dict[str, Memory]:
  """Compiles the programs for an encoder; they by name."""
  types = precision.types_of(config.dtype, "tpu")
  norm = resnet.make_norm(**config.model.batch_norm, **types)
  module = byol.make_encoder(**config.model.encoder, norm=norm, **types)
  size = config.augment.size
  variables = jax.eval_shape(
    lambda x: module.init(jax.random.key(0), x, train=True),
    jax.ShapeDtypeStruct((2, 1, size, size, 3), types["dtype"]),
  )
  whole = sharding.replicated(mesh)
  variables = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), variables
  )
  encoder = encoder_lib.Encoder(module, variables, None, True, {}, {})
  cut = sharding.split(mesh)

  def array(kind: Any, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, kind, sharding=cut)

  images = array(jnp.uint8, _BATCH, size, size, 3)
  feature_fn = features.make_feature_fn(encoder, mesh)
  batch = jax.eval_shape(feature_fn, variables, images)["representation"]
  batch = array(batch.dtype, *batch.shape)
  count = -(-_IMAGES // _BATCH) * _BATCH
  bank = rows.Rows(
    array(jnp.float32, count, batch.shape[1]),
    array(jnp.int32, count),
    array(jnp.int32, count),
  )
  label, mask = array(jnp.int32, _BATCH), array(jnp.bool_, _BATCH)
  of_bank, of_encoder = (
    sum(
      x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape)) / GIB
      for x in jax.tree.leaves(tree)
    )
    for tree in (bank, variables)
  )
  return {
    program: _memory(lowered, beside)
    for program, lowered, beside in (
      ("represent", feature_fn.lower(variables, images), of_bank),
      (
        "write",
        rows.write.lower(bank, batch, label, mask, 1, mesh=mesh),
        of_encoder,
      ),
      ("scale", neighbours.scale.lower(bank), of_encoder),
      (
        "search",
        neighbours.nearest.lower(bank, batch, k=_NEIGHBOURS, mesh=mesh),
        of_encoder,
      ),
    )
  }


def _memory(lowered: Any, beside: float) -> Memory:
  found = lowered.compile().memory_analysis()
  return Memory(
    found.argument_size_in_bytes / GIB,
    found.peak_memory_in_bytes / GIB,
    beside,
  )


if __name__ == "__main__":
  main(*sys.argv[1:])
