"""The benchmarks run, and what they say agrees with itself."""

import importlib
import json
import sys

import pytest

from byol_flax import main, report, slices, trees
from byol_flax.benchmarks import input_rate, step
from byol_flax.train import make_two_views
from configs import byol_digits
from input_pipeline.errors import UsageError

DIGITS = "--config=configs/byol_digits.py"


def run(tmp_path, *flags):
  out = tmp_path / "out.json"
  code = main.main(
    ["benchmark", *flags, DIGITS, f"--out={out}", "--config.batch_size=16"]
  )
  assert code == 0
  return json.loads(out.read_text())


@pytest.mark.slow
def test_the_step_is_timed(tmp_path, capsys):
  found = run(tmp_path, "step", "--updates=3")
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
  assert "share_of_peak" not in found  # nobody knows that of a CPU
  assert "images/s" in capsys.readouterr().out


def test_mistakes_are_told(tmp_path, monkeypatch):
  with pytest.raises(UsageError, match="--updates is 0"):
    run(tmp_path, "step", "--updates=0")
  with pytest.raises(UsageError, match="Cannot write"):
    report.write_json(str(tmp_path / "no" / "out.json"), {})
  # A finder that finds nothing, as where PyTorch is not installed.
  monkeypatch.setattr("sys.path", [])
  monkeypatch.delitem(sys.modules, "torch", raising=False)
  importlib.invalidate_caches()
  with pytest.raises(UsageError, match="needs PyTorch"):
    run(tmp_path, "step", "--against-torch")


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


def test_the_pipeline_is_timed_on_what_there_is():
  two_views = make_two_views(byol_digits.get_config())
  rate, what = input_rate.images_per_second("digits", "train", None, two_views)
  assert rate > 100
  assert what == "images of digits"
  _, what = input_rate.images_per_second(
    "imagenet2012", "train", "/nowhere", two_views
  )
  assert what == "synthetic photographs of 500 × 375"


def test_the_network_in_pytorch_has_our_parameters():
  pytest.importorskip("torch")
  import jax

  from byol_flax import program, sharding
  from byol_flax.benchmarks import torch_byol

  config = byol_digits.get_config()
  mesh = sharding.make_mesh(jax.devices()[:1])
  built = program.build(config, mesh, num_examples=1437, num_classes=10)
  theirs = torch_byol.Network(config.model, 10).parameters()
  ours = trees.count(built.abstract_state.online.params)
  assert sum(x.numel() for x in theirs) == ours
