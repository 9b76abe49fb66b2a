"""An encoder as one file that needs JAX, flatbuffers and nothing else to run.

It is a program of `jax.export` with the weights in it. It maps images, uint8
[B, S, S, 3], to representations, float32 [B, F], for any B, on every platform
that it was made for. JAX reads such files by flatbuffers, a package that it
does not declare.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import export

from byol_flax.models import byol, resnet
from byol_flax.weights import arrays
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Foreign
from input_pipeline import whole_files

FILE = "encoder.jaxexport"
PLATFORMS = ("cpu", "cuda", "tpu")  # in the words of `jax.export`

# A file of this kind has 32-bit offsets, and needs room besides the weights.
_MOST_BYTES = 2_000_000_000


def module_of(found: Foreign) -> resnet.ResNet:
  """The network of the online encoder, computing in float32."""
  types = {"dtype": jnp.float32, "param_dtype": jnp.float32}
  return byol.make_encoder(
    **found.model["encoder"],
    initializer="fan_in",  # of weights that nobody draws
    input_scaling=found.model["input_scaling"],
    norm=resnet.make_norm(**found.model["batch_norm"], **types),
    **types,
  )


def check(found: Foreign) -> None:
  """Raises WeightsError if an encoder is too large for such a file."""
  size = sum(
    4 * math.prod(stored.shape) for _, stored in arrays.flat(found.encoder)
  )
  if size > _MOST_BYTES:
    raise WeightsError(
      f"The encoder's weights are {size:,} bytes, and a file of jax.export "
      f"takes {_MOST_BYTES:,}; export it with --format=npz or safetensors."
    )


def write(path: str, found: Foreign) -> None:
  """Writes the program; it takes about six times the weights of memory.

  Args:
    path: of the new file.
    found: its online encoder is written.

  Raises:
    WeightsError: the encoder is too large, or an array cannot be read.
  """
  check(found)
  module = module_of(found)
  variables = arrays.read(found.encoder)
  represent = jax.jit(functools.partial(resnet.represent, module, variables))
  (batch,) = export.symbolic_shape("b")
  size = found.image_size
  images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
  program = export.export(represent, platforms=PLATFORMS)(images)
  whole_files.write_bytes(path, bytes(program.serialize()))
