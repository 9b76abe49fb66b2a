"""The table of slices, against XLA's own and against itself."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from byol_flax import slices
from byol_flax.preflight import compiler
from input_pipeline.errors import UsageError

SLICES = list(slices.SLICES.values())


def test_names_are_those_of_gcloud():
  for name, devices, hosts in (
    ("v2-8", 8, 1),
    ("v3-32", 32, 4),
    ("v3-512", 512, 64),
    ("v4-8", 4, 1),
    ("v4-32", 16, 4),
    ("v5litepod-1", 1, 1),
    ("v5litepod-16", 16, 4),
    ("v5p-32", 16, 4),
    ("v6e-8", 8, 1),
    ("v6e-256", 256, 64),
  ):
    found = slices.find(name)
    assert (found.devices, found.hosts) == (devices, hosts), name
  assert slices.find("v5e-16") == slices.find("v5litepod-16")


def test_an_unknown_slice_is_told_with_those_that_exist():
  with pytest.raises(UsageError, match=r"v3-48.*v3-8, v3-32.*Did you mean"):
    slices.find("v3-48")
  with pytest.raises(UsageError, match="There is no slice 'tpu'"):
    slices.find("tpu")


def test_neighbours_in_a_generation():
  v3 = slices.find("v3-32")
  assert [x.name for x in slices.smaller(v3)] == ["v3-8"]
  assert slices.larger(v3)[0].name == "v3-64"
  assert slices.smaller(slices.find("v4-8")) == []


@pytest.mark.parametrize("slice_", SLICES, ids=lambda x: x.name)
def test_the_compiler_knows_every_slice(slice_, tpu_compiler):
  devices = compiler.devices_of(slice_)
  assert len(devices) == slice_.devices
  assert len({device.process_index for device in devices}) == slice_.hosts


# Of the peak, by the cycles that libtpu 0.0.42 counts.
SHARES = {
  "v2": 0.989,
  "v3": 0.972,
  "v4": 0.928,
  "v5e": 0.876,
  "v5p": 0.901,
  "v6e": 0.704,
}


@pytest.mark.slow
@pytest.mark.parametrize("generation", slices.GENERATIONS)
def test_a_product_of_large_matrices_runs_near_the_peak(
  generation, tpu_compiler
):
  """Ties clock and peak of each generation to the compiler's cycles."""
  slice_ = next(
    x for x in SLICES if x.generation == generation and x.chips == 4
  )
  device = compiler.devices_of(slice_)[0]
  matrix = jax.ShapeDtypeStruct(
    (8192, 8192), jnp.bfloat16, sharding=SingleDeviceSharding(device)
  )
  product = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
  found = compiler.cost_of(product, slice_)
  share = 2 * 8192**3 / slice_.peak_flops / found.cycle_seconds
  assert share == pytest.approx(SHARES[generation], abs=0.01)
