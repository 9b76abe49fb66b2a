"""Preflight: what is read from the compiler's text, what is made of it."""

import dataclasses
import sys

import pytest

from byol_flax import sharding, slices
from byol_flax.preflight import advice, compiler, estimate, hlo, shallow
from byol_flax.pretrain import build
from byol_flax.slices import GIB
from configs import byol
from input_pipeline.errors import UsageError


def test_collectives_are_read_from_the_text():
  text = """
  %a = (f32[2,64]{1,0:T(2,128)}, bf16[16]{0}) all-reduce(%x, %y), channel_id=1
  %b = bf16[8,128]{1,0:T(8,128)(2,1)} all-gather(%a), dimensions={0}
  %c = (bf16[4,128]{1,0}, bf16[8,128]{1,0}) all-gather-start(%a)
  %d = bf16[8,128]{1,0} all-gather-done(%c)
  %e = f32[16]{0} fusion(%b), calls=%all-reduce.1
  ROOT %f = pred[3,5]{1,0} collective-permute(%e)
  """
  assert hlo.collectives(text) == {
    "all-reduce": hlo.Traffic(1, 4 * 2 * 64 + 2 * 16),
    "all-gather": hlo.Traffic(2, 2 * 8 * 128 * 2),
    "collective-permute": hlo.Traffic(1, 15),
  }


# As libtpu prints it: what is called stands before those that call it.
LOOP = """HloModule jit_train_step, is_scheduled=true

%async_computation (p: f32[8]) -> f32[8] {
  ROOT %a = f32[8]{0} copy(%p), backend_config={"estimated_cycles":"10"}
}

%body (p: f32[8]) -> f32[8] {
  %b = f32[8]{0} async-start(%p), calls=%async_computation
  %c = f32[8]{0} all-reduce(%b), channel_id=1
  ROOT %d = f32[8]{0} copy(%c), backend_config={"estimated_cycles":"100"}
}

%other_body (p: f32[8]) -> f32[8] {
  ROOT %e = f32[8]{0} copy(%p), backend_config={"estimated_cycles":"1000"}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %f = f32[8]{0} copy(%p), backend_config={"estimated_cycles":"1"}
  %g = f32[8]{0} while(%f), condition=%less, body=%body, metadata={op_name="jit(train_step)/while" id=1}
  ROOT %h = f32[8]{0} while(%g), condition=%less, body=%other_body
}
"""  # noqa: E501


def test_cycles_are_added_up():
  text = """
  %a = f32[8]{0} fusion(%x), backend_config={"estimated_cycles":"1200"}
  %b = f32[8]{0} all-reduce(%a), channel_id=1
  ROOT %c = f32[8]{0} copy(%b), backend_config={"x":"3","estimated_cycles":"34"}
  """
  assert hlo.cycles(text) == 1234
  assert hlo.cycles(LOOP) == 1 + 10 + 100 + 1000
  assert hlo.cycles(LOOP, loops=4) == 1 + 4 * 10 + 4 * 100 + 1000
  assert hlo.collectives(LOOP, loops=4) == {"all-reduce": hlo.Traffic(4, 128)}
  assert hlo.cycles("%a = f32[8]{0} add(%x, %y)") == 0
  search = LOOP.replace("jit(train_step)/", "jit(nearest)/shard_map/")
  assert hlo.cycles(search, loops=4) == hlo.cycles(LOOP, loops=4)


def test_a_loop_over_a_scan_counts_as_often_as_it_runs():
  less = """%less (p: s32[]) -> pred[] {
  %n = s32[]{:T(256)} constant(7)
  ROOT %o = pred[] compare(%p, %n), direction=LT, metadata={id=2}
}

ENTRY"""
  text = LOOP.replace("ENTRY", less)
  # Ours has the same condition here, and is not counted twice.
  assert hlo.cycles(text, loops=4) == 1 + 4 * 110 + 7 * 1000
  assert hlo.cycles(text, loops=4, scans=False) == hlo.cycles(LOOP, loops=4)
  for other in ("direction=GT", "direction=NE"):  # ends by its data
    changed = text.replace("direction=LT", other)
    assert hlo.cycles(changed, loops=4) == hlo.cycles(LOOP, loops=4)


@pytest.mark.parametrize(
  ("message", "needed"),
  [
    ("RESOURCE_EXHAUSTED: Used 20.50G of 15.48G hbm. Exceeded", 20.5 * GIB),
    ("temporaries (512.00M) exceeds available HBM (15.48G).", GIB / 2),
    ("RESOURCE_EXHAUSTED: no more", 0),
  ],
)
def test_a_refusal_says_what_is_needed(message, needed):
  assert compiler.needed_bytes(message) == needed


def test_without_the_compiler_it_is_told_how_to_get_it(monkeypatch):
  monkeypatch.setitem(sys.modules, "libtpu", None)
  with pytest.raises(UsageError, match=r"not installed .*\[preflight\]"):
    compiler.check_installed()


def compiled(**changes):
  """What the compiler would say of a step that takes 0.1 s on a v3-8."""
  plain = compiler.Compiled(
    name="update",
    fits=True,
    parameters=10,
    peak_bytes=4 * GIB,
    argument_bytes=GIB,
    beside_bytes=0,
    temporary_bytes=3 * GIB,
    flops=0.614e12,
    bytes_moved=1e9,
    seconds=0.1,
    cycle_seconds=0.2,
    augmentation=None,
    collectives={},
    compile_seconds=1.0,
    batch_size=256,
    total_steps=36_000,
  )
  return dataclasses.replace(plain, **changes)


def test_an_estimate_is_arithmetic():
  found = estimate.estimate(
    [compiled()],
    slices.find("v3-8"),
    accumulation_steps=4,
    images_per_core_second=20.0,
    input_cores=96,
    price_per_device_hour=2.5,
  )
  assert found.images_per_device == 8
  assert found.floor_seconds == pytest.approx(0.01)
  assert found.share_of_peak == pytest.approx(0.1)
  assert found.cycle_share_of_peak == pytest.approx(0.05)
  assert found.images_per_host_second == pytest.approx(2560)
  assert found.input_images_per_host_second == 20 * 96
  assert found.least_hours == pytest.approx(1)
  assert found.hours == pytest.approx(2)
  assert found.device_hours == pytest.approx(16)
  assert found.price == pytest.approx(40)
  lines = "\n".join(
    estimate.words(
      [compiled()], found, slices.find("v3-8"), input_measured="of stone"
    )
  )
  assert "optimistic, not measured" in lines
  assert "TOO FEW" in lines  # 1,920 images/s where 2,560 are wanted
  assert "36,000 updates of 256 images: 2h 00m, 16 device-hours, 40" in lines
  assert "at least 1h 00m" in lines


def memory(config, images=512):
  """A model of memory: a state, and so much for each image held at a time."""
  each = 0.1 if config.model.encoder.recompute else 0.4
  return (1.5 + each * images / config.accumulation_steps) * GIB


@pytest.mark.parametrize("says_how_much", [True, False])
@pytest.mark.parametrize("room", [1.65, 1.8, 1.95, 3, 5.5, 7.1, 13, 52.6, 60])
def test_the_smallest_change_that_fits_is_found(room, says_how_much):
  config = byol.get_config("architecture=resnet200,width=2")
  slice_ = dataclasses.replace(
    slices.find("v3-8"), hbm_bytes=int(room * GIB), devices=8
  )
  tried = []

  def attempt(change):
    tried.append(change.flags)
    need = memory(change.config)
    fits = need < slice_.hbm_bytes
    told = int(need) if fits or says_how_much else 0
    return compiled(fits=fits, peak_bytes=told)

  candidates = advice.changes(config, 8)
  change, result = advice.smallest_that_fits(candidates, attempt, slice_)
  fitting = [c for c in candidates if memory(c.config) < slice_.hbm_bytes]
  assert change == fitting[0]
  assert result.fits
  assert len(set(tried)) == len(tried)
  if says_how_much:
    assert len(tried) <= 6, tried  # of ten


def test_no_advice_leaves_one_image_to_normalise():
  config = byol.get_config()
  config.batch_size, config.accumulation_steps = 24, 3
  for devices, most in ((1, 4), (2, 4), (8, 1)):
    found = advice.changes(config, devices)
    assert max(change.factor for change in found) == most
    for change in found:
      sharding.check_batch_size(
        24,
        devices=devices,
        accumulation_steps=change.config.accumulation_steps,
      )


def test_nothing_may_fit():
  config = byol.get_config()
  result = advice.smallest_that_fits(
    advice.changes(config, 8),
    lambda change: compiled(fits=False, peak_bytes=0),
    slices.find("v3-8"),
  )
  assert result is None


def test_changes_keep_every_micro_batch_whole():
  config = byol.get_config("epochs=1000,batch_size=512")
  config.accumulation_steps = 2
  config.model.encoder.recompute = True
  changes = advice.changes(config, 8)
  assert [c.config.accumulation_steps for c in changes] == [4, 8, 16, 32, 64]
  assert changes[0].flags == "--config.accumulation_steps=4"
  assert changes[0].effect.endswith("BatchNorm statistics of its own")
  config.objective.negatives_weight = 1.0
  assert "and negatives of its own" in advice.changes(config, 8)[0].effect
  config.model.encoder.recompute = False
  assert not advice.changes(config, 8)[0].effect  # recomputed, and no more
  assert config.accumulation_steps == 2


def test_a_smaller_slice_must_hold_the_memory():
  def smaller(peak_bytes):
    return advice.smaller_slice(
      compiled(peak_bytes=peak_bytes),
      slices.find("v3-512"),
      micro_batch=4096,
    )

  found = smaller(2 * GIB)
  assert (found[0].name, found[1]) == ("v3-128", 4)
  assert smaller(9 * GIB) is None


@pytest.mark.slow
def test_recomputation_keeps_block_outputs_and_one_block():
  config = byol.get_config("architecture=resnet50")
  kept = {}
  for recompute in (False, True):
    config.model.encoder.recompute = recompute
    built = build.build(
      config, sharding.make_mesh(), num_examples=4096, num_classes=10
    )
    kept[recompute] = shallow.kept_for_gradient(built.network, 224)
  # Stem, heads, side and inner channels and blocks of each group.
  stem, heads = 112 * 112 * 64 // 4, 2 * 4096
  groups = ((56, 64, 3), (28, 128, 4), (14, 256, 6), (7, 512, 3))
  outputs = sum(n * side**2 * 4 * inner for side, inner, n in groups)
  first = 56**2 * (64 + 64 + 256 + 256)
  assert kept[True] == stem + heads + outputs + first
  assert kept[True] < kept[False]


def test_estimates_follow_the_longer_time_and_bound_by_the_shorter():
  found = estimate.estimate(
    [compiled(seconds=0.2, cycle_seconds=0.1)],
    slices.find("v3-8"),
    accumulation_steps=1,
    images_per_core_second=20.0,
    input_cores=96,
    price_per_device_hour=None,
  )
  assert (found.hours, found.least_hours) == pytest.approx((2, 1))
  assert found.images_per_host_second == pytest.approx(2560)


@pytest.mark.parametrize(
  ("number", "words"),
  [(0.00437, "0.0044"), (0.63, "0.63"), (1400.6, "1,401"), (0.0, "0")],
)
def test_small_amounts_are_told(number, words):
  assert estimate.amount(number) == words
