"""What a config's `dtype` means on the devices at hand."""

from typing import Any

import jax
import jax.numpy as jnp

from input_pipeline.errors import UsageError

_DTYPES = {
  "bfloat16": jnp.bfloat16,
  "float32": jnp.float32,
  "float64": jnp.float64,
}


def types_of(name: str, platform: str) -> dict[str, Any]:
  """The types of activations and parameters that the networks take.

  Args:
    name: "bfloat16", "float32", "float64", or "auto": bfloat16 on accelerators,
      float32 on a CPU.
    platform: of the devices, such as "tpu".

  Returns:
    "dtype" and "param_dtype".

  Raises:
    UsageError: float64 where JAX has none.
  """
  if name == "auto":
    name = "float32" if platform == "cpu" else "bfloat16"
  if name != "float64":
    return {"dtype": _DTYPES[name], "param_dtype": jnp.float32}
  # JAX would go on in float32, without an error.
  if jax.dtypes.canonicalize_dtype(jnp.float64) != jnp.float64:
    raise UsageError(
      "dtype is float64, which JAX has only where JAX_ENABLE_X64=1 stands in "
      "the environment of every process; set it, or take another dtype."
    )
  return {"dtype": jnp.float64, "param_dtype": jnp.float64}
