"""Preflight: what the TPU compiler says of real steps, and their budget."""

import functools

import jax
import jax.numpy as jnp
import pytest

from byol_flax import sharding, slices
from byol_flax.benchmarks import operations
from byol_flax.preflight import compiler, estimate
from byol_flax.pretrain import build
from configs import byol, byol_digits

# Of one block in each of the first two groups of ResNet-50, at 32 pixels and 8
# images on each of the 32 cores of a v3-32, as compiled by libtpu 0.0.42.
BLOCKS = (1, 1)
BUDGET = {
  "all-reduce": 20,
  "all-gather": 18,
  "bytes_moved": 230.3e6,
  "temporary_bytes": 49.5e6,
  "cycle_seconds": 0.7735e-3,
}
GROWTH = 1.03  # more than that fails


@functools.cache
def small_step(
  accumulation_steps=1,
  *,
  device="accelerator",
  hidden_size=64,
  slice_name="v3-8",
):
  """A step of one block that augments on `device`, 64 images a micro-batch."""
  config = byol_digits.get_config()
  config.batch_size = 64 * accumulation_steps
  config.accumulation_steps = accumulation_steps
  config.augment.device = device
  config.model.encoder.width = 0.25
  for head in (config.model.projector, config.model.predictor):
    head.update(hidden_size=hidden_size, output_size=256)
  return compiler.compile_step(
    config,
    slices.find(slice_name),
    num_examples=1437,
    num_classes=10,
    tell=lambda phase: None,
    blocks=(1,),
  )


@pytest.mark.slow
@pytest.mark.xdist_group("small step")
def test_augmentation_on_the_devices_is_a_part_of_the_step(tpu_compiler):
  found = small_step()
  assert 0 < found.augmentation.seconds < found.seconds
  assert 0 < found.augmentation.cycle_seconds < found.cycle_seconds
  assert 0 < found.augmentation.bytes_moved < found.bytes_moved
  told = estimate.estimate(
    [found],
    slices.find("v3-8"),
    accumulation_steps=1,
    images_per_core_second=1.0,
    input_cores=96,
    price_per_device_hour=None,
  )
  lines = estimate.words(
    [found], told, slices.find("v3-8"), input_measured="of stone"
  )
  assert "GB of it for augmentation" in "\n".join(lines)


@pytest.mark.slow
def test_the_step_stays_within_its_budget(tpu_compiler):
  config = byol.get_config("architecture=resnet50")
  config.augment.size = 32
  config.batch_size = 256
  result = compiler.compile_step(
    config,
    slices.find("v3-32"),
    num_examples=1_281_167,
    num_classes=1000,
    tell=lambda phase: None,
    blocks=BLOCKS,
  )
  found = {
    **{kind: traffic.count for kind, traffic in result.collectives.items()},
    "bytes_moved": result.bytes_moved,
    "temporary_bytes": result.temporary_bytes,
    "cycle_seconds": result.cycle_seconds,
  }
  grown = {
    name: value
    for name, value in found.items()
    if value > GROWTH * BUDGET.get(name, 0)
  }
  assert not grown, f"{grown} of {found}; the budget is {BUDGET}"
  # Gradients are added up in float32.
  assert result.collectives["all-reduce"].size >= 4 * result.parameters
  # Counted before anything is compiled, as `benchmark step` does.
  mesh = sharding.make_mesh()
  built = build.build(
    config,
    mesh,
    num_examples=1_281_167,
    num_classes=1000,
    blocks=BLOCKS,
  )
  counted = operations.count(
    built.step_fn, built.abstract_state, built.abstract_batch
  )
  assert counted / 32 == pytest.approx(result.flops, rel=0.03)
  # Far less would be a fault of the counting.
  missed = [name for name in BUDGET if found.get(name, 0) < BUDGET[name] / 2]
  assert not missed, f"{missed} of {found}; the budget is {BUDGET}"


@pytest.mark.slow
def test_operations_without_a_cost_do_not_spoil_the_estimate(tpu_compiler):
  """On v4 each of nine, which heads of this width have, counts as -1 second."""
  slice_ = slices.find("v4-8")
  result = small_step(device="host", hidden_size=4096, slice_name="v4-8")
  floor = result.flops / slice_.peak_flops
  assert floor < result.seconds < 1000 * floor


def test_truth_values_that_devices_send_do_not_spoil_the_estimate(
  tpu_compiler,
):
  slice_ = slices.find("v3-8")
  mesh = sharding.make_mesh(compiler.devices_of(slice_))
  rows = jax.ShapeDtypeStruct((16,), bool, sharding=sharding.split(mesh))
  gather = jax.jit(jnp.logical_not, out_shardings=sharding.replicated(mesh))
  compiled = gather.lower(rows).compile()
  assert "ZeroCrop" in compiled.as_text()
  assert 0 < compiler.cost_of(compiled, slice_).seconds < 1e-3


@pytest.mark.slow
@pytest.mark.xdist_group("small step")
def test_a_loop_over_micro_batches_is_counted_as_often_as_it_runs(
  tpu_compiler,
):
  one, four = small_step(), small_step(4)
  # The update itself is not repeated.
  for name in ("flops", "cycle_seconds"):
    assert 2.5 < getattr(four, name) / getattr(one, name) < 4, name
  # Gradients of each micro-batch, statistics of each.
  assert (
    3
    < (
      four.collectives["all-reduce"].count / one.collectives["all-reduce"].count
    )
    < 4.5
  )
