"""The benchmarks run, and what they say agrees with itself."""

import dataclasses
import importlib
import json
import multiprocessing
import os
import sys
import time

import jax
import pytest

from byol_flax import main, sharding, slices, trees
from byol_flax.benchmarks import (
  input_evaluation,
  input_stages,
  input_table,
  input_whole,
  photographs,
  step,
)
from byol_flax.benchmarks import opponent as opponent_lib
from byol_flax.pretrain import build, inputs
from byol_flax.runs import out_files
from configs import byol, byol_digits
from input_pipeline import decoding, sources
from input_pipeline.errors import UsageError
from tests import opponents

DIGITS = "--config=configs/byol_digits.py"


# A network whose step compiles in less time.
SMALL = (
  "--config.model.encoder.architecture=basic:1:32:32",
  "--config.model.encoder.width=1",
)


def run(tmp_path, *flags):
  out = tmp_path / "out.json"
  code = main.main(
    ["benchmark", *flags, DIGITS, f"--out={out}", "--config.batch_size=16"]
  )
  assert code == 0
  return json.loads(out.read_text())


@pytest.mark.slow
def test_the_step_is_timed(tmp_path, capsys, monkeypatch):
  monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
  found = run(tmp_path, "step", "--updates=3", "--against-torch", *SMALL)
  ours = found["byol_flax"]
  assert ours["updates"] == 3
  assert ours["images_per_second"] == pytest.approx(16 / ours["median_seconds"])
  assert (
    0
    < ours["first_quartile_seconds"]
    <= ours["median_seconds"]
    <= ours["third_quartile_seconds"]
  )
  assert found["flops_of_a_device"] > 1e6
  # Without PyTorch, and with it, our figures stand and JAX leaves it memory.
  assert ("failed" in found["pytorch"]) != ("speed_up" in found)
  assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
  assert "share_of_peak" not in found  # nobody knows that of a CPU
  assert "images/s" in capsys.readouterr().out


def test_mistakes_are_told(tmp_path, monkeypatch):
  with pytest.raises(
    UsageError, match="--updates is 0; expected a whole number from 1"
  ):
    run(tmp_path, "step", "--updates=0")
  with pytest.raises(UsageError, match="Cannot write"):
    out_files.write_json(str(tmp_path / "no" / "out.json"), {})
  cached = "--config.augment.cache=device"
  with pytest.raises(UsageError, match=r"leave augment\.device at host"):
    run(tmp_path, "step", "--against-torch", cached)


@pytest.mark.parametrize(
  ("opponent", "failure"),
  [
    (opponents.sleeps, ""),
    (opponents.dies, "its process ended with -9"),
    (opponents.wants_too_much, "MemoryError: CUDA out of memory."),
  ],
)
def test_turns_against_an_opponent(opponent, failure):
  batch = {"view1": [0]}
  times, found = step.take_turns(
    lambda: time.sleep(0.01), 4, opponent, (None, batch, 10)
  )
  assert found == failure
  assert len(times["byol_flax"]) == 4
  assert min(times["byol_flax"]) >= 0.01
  if failure:
    assert "pytorch" not in times
  else:
    assert len(times["pytorch"]) == 4
    assert 0.02 <= min(times["pytorch"]) < 20
  assert not multiprocessing.active_children()


def test_an_opponent_that_hangs_is_ended(monkeypatch):
  monkeypatch.setattr(opponent_lib, "_SECONDS_TO_ANSWER", 0.5)
  times, found = step.take_turns(
    lambda: None, 3, opponents.hangs, (None, {}, 10)
  )
  assert found == "no update was done in 0.5 s"
  assert len(times["byol_flax"]) == 3
  assert not multiprocessing.active_children()


@pytest.mark.slow
def test_an_opponent_is_measured_alone(capsys):
  config = byol_digits.get_config()
  config.batch_size = 16
  config.model.encoder.update(architecture="basic:1:32:32", width=1.0)
  measured = step.measure_alone(config, updates=3, against=opponents.waits)
  assert not measured.failure
  assert len(measured.seconds) == 2 + 3
  found = step.benchmark(
    config, updates=3, stream=sys.stdout, measured=measured
  )
  assert 0.02 <= found["pytorch"]["median_seconds"] < 20
  assert found["speed_up"] == pytest.approx(
    found["pytorch"]["median_seconds"] / found["byol_flax"]["median_seconds"]
  )
  assert "times as fast as PyTorch" in capsys.readouterr().out
  gone = step.measure_alone(config, updates=3, against=opponents.dies)
  assert gone == ([], "its process ended with -9")
  assert not multiprocessing.active_children()


def test_without_pytorch_it_is_told_how_to_install_it(monkeypatch):
  # A finder that finds nothing.
  monkeypatch.setattr("sys.path", [])
  monkeypatch.delitem(sys.modules, "torch", raising=False)
  importlib.invalidate_caches()
  with pytest.raises(UsageError, match=r"pip install 'byol-flax\[bench\]'"):
    step.torch_update(byol_digits.get_config(), {}, 10)


@pytest.mark.slow
def test_the_cost_of_a_checkpoint(tmp_path):
  found = run(tmp_path, "checkpoint")
  # Three times the parameters (online, momentum, target) and a little more.
  config = byol_digits.get_config()
  config.batch_size = 16
  assert found["state_bytes"] > 3 * 4 * 339_178
  assert found["state_bytes"] < 3.1 * 4 * 339_178
  for blocking, committed in zip(
    found["blocking_seconds"], found["committed_seconds"], strict=True
  ):
    assert 0 < blocking <= committed
  assert found["restored"]
  assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.parametrize(
  ("kind", "generation"),
  [
    ("TPU v3", "v3"),
    ("TPU v4", "v4"),
    ("TPU v5 lite", "v5e"),
    ("TPU v5", "v5p"),
    ("TPU v5p", "v5p"),
    ("TPU v6 lite", "v6e"),
  ],
)
def test_peaks_by_the_names_that_jax_gives(kind, generation):
  peak = slices.GENERATIONS[generation].peak_tflops * 1e12
  assert step.peak_of(kind) == peak
  assert step.peak_of("cpu") is None
  assert step.peak_of("NVIDIA H200") == 989e12


@pytest.mark.slow
def test_the_input_is_timed_stage_by_stage(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(input_whole, "_SECONDS", 0.5)
  monkeypatch.setattr(input_whole, "_WARM_UP_SECONDS", 0.1)
  found = run(tmp_path, "input")
  stages = {stage["name"]: stage["milliseconds"] for stage in found["stages"]}
  assert "decode" not in stages  # digits are pixels
  assert list(stages)[-1] == "whole"
  assert all(time >= 0 for time in stages.values())
  assert stages["solarize"] == 0  # never drawn in the config of digits
  assert 0 < stages["crop, resize, flip"] < stages["whole"]
  rates = found["rates"]
  assert rates["num_workers"] == 1
  assert min(rates["one_worker"], rates["hand_over"], rates["transfer"]) > 0
  words = capsys.readouterr().out
  assert "images of digits" in words
  assert "crop, resize, flip" in words
  assert "limit: " in words


@pytest.mark.slow
def test_the_input_of_evaluations_is_timed_beside_that_of_training(
  tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(input_evaluation, "_ROUNDS", 1)
  monkeypatch.setattr(input_evaluation, "_SECONDS", 0.1)
  monkeypatch.setattr(input_evaluation, "_SETTLING", 0.1)
  found = run(tmp_path, "input", "--evaluation")
  rates = found["rates"]
  assert rates["num_workers"] == 1
  assert rates["one_worker"] == rates["all_workers"] > 0
  assert min(rates["threads"], rates["training"]) > 0
  assert found["chosen"].endswith(
    "workers would take longer to start than these take to read"
  )
  assert "evaluation / training" in capsys.readouterr().out


def one_core(source, config):
  return input_stages.one_core(source, config.augment, config.batch_size)


@pytest.mark.slow
def test_without_the_data_synthetic_photographs_are_measured(monkeypatch):
  monkeypatch.setattr(input_stages, "_PIXELS", 2_000_000)
  monkeypatch.setattr(input_stages, "_ROUNDS", 1)
  config = byol.get_config()
  config.loader.data_dir = "/nowhere"
  source, what = photographs.open_images(config)
  assert what == "synthetic photographs of 500 × 375"
  stages = {
    stage.name: stage.images_per_second for stage in one_core(source, config)
  }
  assert {"decode", "hue", "whole"} < set(stages)
  assert stages["whole"] > 1
  config.augment.device = "accelerator"
  crops = {stage.name for stage in one_core(source, config)}
  assert {"decode", "whole"} < crops
  assert "hue" not in crops


def test_draws_for_resident_images_are_made_and_measured_in_batches():
  config = byol_digits.get_config()
  config.augment.cache = "device"
  source = sources.open_source("digits", "train")
  stages = one_core(source, config)
  assert [stage.name for stage in stages] == ["order", "draw", "whole"]
  # Ten microseconds before, one image at a time; half of one since.
  assert stages[-1].milliseconds < 0.005
  readable = sources.ReadableSource(source)
  read = inputs.open_inputs(config, readable, sharding.make_mesh())
  assert str(read.how).startswith("1 thread(s) of this process")
  assert "larger batch_size" in read.advice()  # no word of cores
  rates = input_whole.Rates(
    one_worker=1e6,
    all_workers=1e6,
    num_workers=0,
    hand_over=1e6,
    transfer=2e6,
    chunk_rows=256,
    worker_bytes=0,
  )
  limit, advice = input_table.limit(stages, rates, cores=4)
  assert limit == "the one thread that draws"
  assert "Workers would not make it faster" in advice


@pytest.mark.slow
def test_photographs_of_a_given_size_are_measured(monkeypatch):
  monkeypatch.setattr(input_stages, "_PIXELS", 4_000_000)
  monkeypatch.setattr(input_stages, "_ROUNDS", 1)
  config = byol.get_config()
  size = photographs.parse_size("1600x1200")
  source, what = photographs.open_images(config, size)
  assert what == "synthetic photographs of 1600 × 1200"
  assert decoding.image_size(source[0]["image"]) == (1200, 1600)
  times = {}
  for config.augment.scaled_decoding in (False, True):
    stages = one_core(source, config)
    times[config.augment.scaled_decoding] = {
      stage.name: stage.milliseconds for stage in stages
    }
  assert times[True].keys() == times[False].keys()
  for wrong in ("4000", "4000x", "0x3", "99999x99999"):
    with pytest.raises(UsageError, match="--image-size is"):
      photographs.parse_size(wrong)


def test_a_folder_that_is_not_there_is_no_reason_for_synthetic_ones():
  config = byol.get_config()
  config.data.name = "folder:/nowhere"
  with pytest.raises(UsageError, match="/nowhere"):
    photographs.open_images(config)


STAGES = [
  input_stages.Stage("read", 0.1),
  input_stages.Stage("decode", 1.0),
  input_stages.Stage("hue", 1.5),
  input_stages.Stage("whole", 2.6),
]


@pytest.mark.parametrize(
  ("changes", "limit", "advice"),
  [
    ({}, "hue, on the cores", "augment.device=accelerator"),
    ({"num_workers": 3}, "hue, on the cores", "num_workers=4"),
    ({"hand_over": 1100}, "handing batches over", "More processes"),
    ({"transfer": 1100}, "the transfer", "augment.cache=device"),
    ({"one_worker": 100}, "whatever its size", "More cores"),
  ],
)
def test_the_limit_is_named(changes, limit, advice):
  rates = input_whole.Rates(
    one_worker=350,
    all_workers=1000,
    num_workers=4,
    hand_over=9000,
    transfer=9000,
    chunk_rows=16,
    worker_bytes=2**28,
  )
  rates = dataclasses.replace(rates, **changes)
  found = input_table.limit(STAGES, rates, cores=4)
  assert limit in found[0]
  assert advice in found[1]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("device", "cache"), [("accelerator", "none"), ("host", "device")]
)
def test_a_step_that_augments_is_timed(tmp_path, device, cache):
  places = (
    f"--config.augment.device={device}",
    f"--config.augment.cache={cache}",
  )
  found = run(tmp_path, "step", "--updates=2", *SMALL, *places)
  assert found["byol_flax"]["updates"] == 2


def test_the_network_in_pytorch_has_our_parameters():
  pytest.importorskip("torch")
  from byol_flax.benchmarks import torch_byol

  config = byol_digits.get_config()
  mesh = sharding.make_mesh(jax.devices()[:1])
  built = build.build(config, mesh, num_examples=1437, num_classes=10)
  theirs = torch_byol.Network(config.model, 10).parameters()
  ours = trees.count(built.abstract_state.online.params)
  assert sum(x.numel() for x in theirs) == ours
