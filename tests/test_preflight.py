"""Preflight: what is read from the compiler, what is made of it, budgets."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from byol_flax import slices
from byol_flax.preflight import advice, apart, compiler, estimate, hlo
from byol_flax.slices import GIB
from configs import byol, byol_cifar10
from input_pipeline.errors import RunError, UsageError
from tests import conftest, trainers

# Of one block per group of ResNet-50 at 64 pixels, 8 images on each of the 32
# cores of a v3-32, as compiled by libtpu 0.0.42.
BUDGET = {
  "all-reduce": 33,
  "all-gather": 34,
  "bytes_moved": 675.5e6,
  "temporary_bytes": 95.9e6,
  "cycle_seconds": 2.572e-3,
}
GROWTH = 1.03  # more than that fails


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


def test_cycles_are_added_up():
  text = """
  %a = f32[8]{0} fusion(%x), backend_config={"estimated_cycles":"1200"}
  %b = f32[8]{0} all-reduce(%a), channel_id=1
  ROOT %c = f32[8]{0} copy(%b), backend_config={"x":"3","estimated_cycles":"34"}
  """
  assert hlo.cycles(text) == 1234
  assert hlo.cycles("%a = f32[8]{0} add(%x, %y)") == 0


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
    fits=True,
    parameters=10,
    peak_bytes=4 * GIB,
    argument_bytes=GIB,
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


@pytest.mark.slow
def test_augmentation_on_the_devices_is_a_part_of_the_step(tpu_compiler):
  config = byol_cifar10.get_config()
  config.batch_size = 64
  config.augment.device = "accelerator"
  found = compiler.compile_step(
    config,
    slices.find("v3-8"),
    num_examples=50_000,
    num_classes=10,
    blocks=(1, 1, 1, 1),
    tell=lambda phase: None,
  )
  assert 0 < found.augmentation.seconds < found.seconds
  assert 0 < found.augmentation.cycle_seconds < found.cycle_seconds
  assert 0 < found.augmentation.bytes_moved < found.bytes_moved
  told = estimate.estimate(
    found,
    slices.find("v3-8"),
    accumulation_steps=1,
    images_per_core_second=1.0,
    price_per_device_hour=None,
  )
  lines = estimate.words(
    found, told, slices.find("v3-8"), input_measured="of stone"
  )
  assert "GB of it for augmentation" in "\n".join(lines)


def test_an_estimate_is_arithmetic():
  found = estimate.estimate(
    compiled(),
    slices.find("v3-8"),
    accumulation_steps=4,
    images_per_core_second=20.0,
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
      compiled(), found, slices.find("v3-8"), input_measured="of stone"
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
@pytest.mark.parametrize("room", [1.65, 1.8, 1.95, 3, 7.1, 13, 52.6, 60])
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
  assert config.accumulation_steps == 2


def test_a_smaller_slice_must_hold_the_memory():
  config = byol.get_config()
  slice_ = slices.find("v3-512")
  found = advice.smaller_slice(compiled(peak_bytes=2 * GIB), slice_, config)
  assert (found[0].name, found[1]) == ("v3-128", 4)
  assert advice.smaller_slice(compiled(peak_bytes=9 * GIB), slice_, config) is (
    None
  )


@pytest.mark.slow
def test_the_step_stays_within_its_budget(tpu_compiler):
  config = byol.get_config("architecture=resnet50")
  config.augment.size = 64
  config.batch_size = 256
  result = compiler.compile_step(
    config,
    slices.find("v3-32"),
    num_examples=1_281_167,
    num_classes=1000,
    tell=lambda phase: None,
    blocks=(1, 1, 1, 1),
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


@pytest.mark.slow
def test_operations_without_a_cost_do_not_spoil_the_estimate(tpu_compiler):
  """On v4 each of some dozen counts as -1 second."""
  config = byol_cifar10.get_config()
  config.batch_size = 64
  slice_ = slices.find("v4-8")
  result = compiler.compile_step(
    config,
    slice_,
    num_examples=50_000,
    num_classes=10,
    blocks=(1, 1, 1, 1),
    tell=lambda phase: None,
  )
  floor = result.flops / slice_.peak_flops
  assert floor < result.seconds < 1000 * floor


def crash(config, slice_, *, tell):
  tell("crashing")
  os.write(2, b"*** SIGSEGV received by PID 1 ***\nPC: 0x00\n")
  os.kill(os.getpid(), signal.SIGSEGV)


def mistake(config, slice_, *, tell):
  raise UsageError(f"{config} does not suit {slice_.name}")


def dawdle(config, slice_, *, tell):
  tell("dawdling")
  time.sleep(1)
  return compiled()


def test_a_crash_of_the_compiler_is_one_sentence():
  with pytest.raises(RunError, match=r"ended with -11 .*v3-8: SIGSEGV") as told:
    apart.compile_apart(crash, None, slices.find("v3-8"), stream=io.StringIO())
  assert "\n" not in str(told.value)


def test_a_mistake_found_by_the_child_is_told():
  with pytest.raises(UsageError, match="this does not suit v3-8"):
    apart.compile_apart(
      mistake, "this", slices.find("v3-8"), stream=io.StringIO()
    )


def test_a_long_compilation_tells_how_long_it_takes(monkeypatch):
  monkeypatch.setattr(apart, "_SECONDS_BETWEEN_NOTES", 0.3)
  stream = io.StringIO()
  found = apart.compile_apart(dawdle, None, slices.find("v3-8"), stream=stream)
  assert found == compiled()
  assert "dawdling, " in stream.getvalue()


def preflight(out, *flags):
  command = [sys.executable, "-m", "byol_flax.main", "preflight"]
  return subprocess.Popen(
    [*command, "--config=configs/byol_digits.py", f"--out={out}", *flags],
    cwd=trainers.ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    # As a user has it.
    env={k: v for k, v in os.environ.items() if k not in conftest.FOR_LIBTPU},
  )


@pytest.mark.slow
def test_two_preflights_at_once(tmp_path, tpu_compiler):
  outs = [tmp_path / "a.json", tmp_path / "b.json"]
  runs = [
    preflight(outs[0], "--slice=v3-8"),
    preflight(outs[1], "--slice=v4-8", "--fast", "--price=3"),
  ]
  for run, out in zip(runs, outs, strict=True):
    words, errors = run.communicate(timeout=300)
    assert (run.returncode, errors) == (0, ""), errors
    assert "fits: " in words
    answer = json.loads(out.read_text())
    assert answer["step"]["fits"]
    assert answer["run"]["hours"] > 0
    assert answer["config"]["batch_size"] == 64
  assert answer["extrapolated"]
  assert answer["run"]["price"] == pytest.approx(
    3 * answer["run"]["device_hours"]
  )


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--slice=v3-9"], "There is no slice 'v3-9'"),
    (["--slice=v3-32", "--config.batch_size=65"], "batch_size 65 cannot"),
    (["--slice=v3-8", "--price=-1"], "--price is -1.0"),
  ],
)
def test_mistakes_are_told(tmp_path, flags, words, tpu_compiler):
  run = preflight(tmp_path / "out.json", *flags)
  _, errors = run.communicate(timeout=120)
  assert run.returncode == 2
  assert words in errors
  assert len(errors.splitlines()) == 1
  assert not (tmp_path / "out.json").exists()
