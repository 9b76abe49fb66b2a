"""PyTorch and transformers are asked about files of all kinds, and no more."""

import argparse
import json

import pytest

from byol_flax.weights import importing, safetensors_files
from tests.weights import torch_made

torch = pytest.importorskip("torch", reason="the extra [interop] brings it")


def tensors(naming="torchvision", prefix=""):
  named = torch_made.state_dict(naming)
  return {prefix + name: torch.tensor(array) for name, array in named.items()}


FILES = {
  "torchvision": tensors,
  "an nn.Sequential": lambda: tensors("sequential", "backbone."),
  "in a list": lambda: {"models": [{"model": tensors()}]},
  "of Hugging Face": lambda: tensors("huggingface", "resnet."),
  "without counts": lambda: {
    n: t for n, t in tensors().items() if not n.endswith("_tracked")
  },
  "of half precision": lambda: {
    n: t.half() if t.is_floating_point() else t for n, t in tensors().items()
  },
}


def features_told(path, tmp_path):
  """What an import says of the features by the other side."""
  lines = []
  importing.run(str(path), str(tmp_path / "out"), lines.append)
  (told,) = [line for line in lines if line.startswith("features")]
  return told


@pytest.mark.parametrize("kind", FILES)
def test_the_other_side_reads_a_file_itself(tmp_path, kind):
  if "Hugging" in kind:
    pytest.importorskip("transformers")
  path = tmp_path / "a.pth"
  torch.save(FILES[kind](), path)
  told = features_told(path, tmp_path)
  assert "(which read the file itself) differ by" in told


def test_a_file_that_torch_refuses_is_compared_all_the_same(tmp_path):
  path = tmp_path / "a.pth"
  settings = argparse.Namespace(batch_size=256)
  torch.save({"state_dict": tensors(), "args": settings}, path)
  told = features_told(path, tmp_path)
  assert "refuses the file and was given its arrays) differ by" in told


@pytest.mark.parametrize(
  "hostile",
  [
    {},  # a network of other shapes
    {"depths": "x"},
    {"hidden_sizes": [10**9] * 4},
    {"attn_implementation": "somebody/kernel"},
    {"quantization_config": {"quant_method": "bitsandbytes"}},
  ],
)
def test_transformers_is_not_given_the_config_of_a_stranger(tmp_path, hostile):
  pytest.importorskip("transformers")
  named = torch_made.state_dict("huggingface")
  safetensors_files.write(str(tmp_path / "model.safetensors"), named, {})
  config = {"model_type": "resnet", **hostile}
  (tmp_path / "config.json").write_text(json.dumps(config))
  told = features_told(tmp_path, tmp_path)
  assert "through transformers" in told
  assert "differ by" in told
