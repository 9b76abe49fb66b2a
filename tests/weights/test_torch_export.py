"""Exports for PyTorch come back as they were, and say what they are."""

import dataclasses
import json
import os

import numpy as np
import pytest

from byol_flax.models import resnet
from byol_flax.weights import (
  arrays,
  huggingface,
  model_card,
  safetensors_files,
  torch_export,
  torch_weights,
)
from byol_flax.weights.arrays import Stored
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Account, Foreign
from input_pipeline.errors import UsageError
from tests.weights import made, torch_made
from tests.weights.test_npz import assert_equal

OPTIONS = (
  {"shortcut": "identity"},
  {"shortcut": "projection"},
  {"padding": "symmetric", "stem": "imagenet"},
  {"architecture": "bottleneck:2-1:8-12:4"},
)


def with_options(options):
  """A model with settings that no default has."""
  model = made.model_with(**made.SMALL["encoder"] | options)
  return model | {"batch_norm": {"decay": 0.99, "epsilon": 1e-3}}


def assert_same(found, expected):
  assert_equal(found, expected)
  for name in ("step", "image_size", "crop_ratio", "model"):
    assert getattr(found, name) == getattr(expected, name), name
  assert found.format == "byol"


@pytest.mark.parametrize("options", OPTIONS)
def test_an_encoder_comes_back_bit_for_bit(tmp_path, options):
  weights = made.weights(with_options(options), modules=["encoder"])
  weights = dataclasses.replace(
    weights, model={**weights.model, "input_scaling": "unit"}
  )
  folder = str(tmp_path / "out")
  torch_made.exported(torch_export.write_encoder, weights, folder)
  assert sorted(os.listdir(folder)) == [
    "README.md",
    "config.json",
    "encoder.py",
    "export.json",
    "model.safetensors",
  ]
  assert_same(torch_weights.read(folder), weights)
  # The file alone is enough: it says of itself what no array tells.
  alone = str(tmp_path / "renamed.bin")
  os.rename(os.path.join(folder, "model.safetensors"), alone)
  assert_same(torch_weights.read(alone), weights)


def test_a_state_comes_back_bit_for_bit(tmp_path):
  model = with_options({})
  model["projector"] |= {"layers": 3, "final_bias": True}
  model["predictor"] |= {"final_norm": True}
  weights = made.weights(model)
  folder = str(tmp_path / "out")
  torch_made.exported(torch_export.write_state, weights, folder)
  assert_same(torch_weights.read(folder), weights)
  named = torch_weights.safetensors_files.read(f"{folder}/model.safetensors")[0]
  kernel = named["online.projector.linear0.weight"].load()
  ours = weights.networks["online"]["params"]["projector"]["linear0"]["kernel"]
  np.testing.assert_array_equal(kernel, ours.load().T)
  assert "momentum.predictor.final_norm.weight" in named


@pytest.mark.slow
def test_a_state_without_predictor_or_target_comes_back(tmp_path):
  model = with_options({})
  model["predictor"] |= {"layers": 0}
  weights = made.weights(model, modules=["encoder", "projector", "classifier"])
  torch_made.exported(torch_export.write_state, weights, str(tmp_path / "out"))
  assert_same(torch_weights.read(str(tmp_path / "out")), weights)


def state(tmp_path, change):
  """A state whose arrays `change` has changed, by name."""
  files = torch_weights.safetensors_files
  torch_made.exported(
    torch_export.write_state, made.weights(), str(tmp_path / "out")
  )
  path = str(tmp_path / "out" / "model.safetensors")
  stored, metadata = files.read(path)
  named = change({name: array.load() for name, array in stored.items()})
  metadata.pop("format")
  files.write(path, named, metadata)
  return path


BAD_STATES = {
  "extra": (lambda n: n | {"online.decoder.w": np.ones(2)}, "online.decoder.w"),
  "no network": (
    lambda n: {k: v for k, v in n.items() if "online" not in k},
    "online network lacks the encoder",
  ),
  "missing": (
    lambda n: {k: v for k, v in n.items() if k != "target.classifier.bias"},
    "target/params/classifier/bias .* is missing",
  ),
  "momentum": (
    lambda n: n | {"momentum.classifier.bias": np.ones(9, np.float32)},
    r"momentum\.classifier\.bias is \[9\], expected \[3\]",
  ),
  "no encoder": (
    lambda n: {k: v for k, v in n.items() if "target.encoder" not in k},
    "target network lacks the encoder",
  ),
}


@pytest.mark.parametrize(
  ("change", "said"), BAD_STATES.values(), ids=BAD_STATES
)
def test_states_that_do_not_fit_are_refused(tmp_path, change, said):
  with pytest.raises(WeightsError, match=said):
    torch_weights.read(state(tmp_path, change))


def abstract(architecture, width):
  """An encoder of any size, of arrays that take no memory."""
  model = made.model_with(
    architecture=architecture,
    width=width,
    shortcut="identity"
    if architecture in ("resnet18", "resnet34")
    else "projection",
    padding="symmetric",
    zero_init_last=False,
  )
  shapes = torch_weights.fitting.shapes_of(
    model, {"params": {"encoder": {}}, "batch_stats": {"encoder": {}}}
  )

  def stored(path, shape):
    kind = np.int32 if path.endswith("count") else np.float32
    return Stored(shape, np.dtype(kind), lambda: np.zeros(shape, kind))

  leaves = {path: stored(path, s) for path, s in arrays.flat(shapes)}
  tree = arrays.nested(leaves)
  return Foreign(
    format="made",
    networks={"online": tree},
    momentum=None,
    step=None,
    model=model,
    image_size=224,
    crop_ratio=0.875,
    account=Account(0, {}),
    details={},
  )


NAMES = [
  pytest.param(
    name, marks=[pytest.mark.slow] if len(name) > len("resnet50") else []
  )
  for name in resnet.ARCHITECTURES
  if name != "resnet8"
]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1.0, 2.0])
@pytest.mark.parametrize("name", NAMES)
def test_every_depth_and_width_goes_there_and_back(name, width):
  weights = abstract(name, width)
  expected = {p: x.shape for p, x in arrays.flat(weights.encoder)}
  names = torch_weights.torch_names
  for naming in ("torchvision", "huggingface"):
    there = {
      names.name_of(place, naming): names.to_torch(place, stored)
      for place, stored in names.places(weights.encoder)
    }
    back = torch_weights.from_arrays(there)
    assert back.model["encoder"] == weights.model["encoder"]
    assert {p: x.shape for p, x in arrays.flat(back.encoder)} == expected
  assert huggingface.why_not(weights) is None
  twin = torch_export.why_no_twin(weights)
  assert (twin is None) == (width == 1 and name != "resnet200")


@pytest.mark.parametrize(
  ("options", "said"),
  [
    ({"padding": "same"}, r"pads as TensorFlow does"),
    ({"shortcut": "projection"}, "projects the shortcut"),
    ({"stem": "small"}, "3 × 3"),
    ({"epsilon": 1e-3}, "epsilon 0.001"),
  ],
)
def test_what_others_cannot_compute_is_said(tmp_path, options, said):
  weights = abstract("resnet18", 1.0)
  epsilon = options.pop("epsilon", 1e-5)
  model = {
    **weights.model,
    "encoder": weights.model["encoder"] | options,
    "batch_norm": {"decay": 0.9, "epsilon": epsilon},
  }
  weights = dataclasses.replace(weights, model=model)
  folder = tmp_path / "out"
  with pytest.raises(WeightsError, match=f"cannot compute.*{said}"):
    torch_made.exported(huggingface.write, weights, str(folder), run={})
  assert not folder.exists()
  torch_made.exported(torch_export.write_encoder, weights, str(folder))
  readme = (folder / "README.md").read_text()
  assert said in " ".join(readme.split())
  assert "torchvision.models" not in readme


def test_others_may_read_an_export_as_the_umask_says(tmp_path):
  mask = os.umask(0o022)
  try:
    safetensors_files.write(str(tmp_path / "x"), {"x": np.zeros(1)}, {})
  finally:
    os.umask(mask)
  assert os.stat(tmp_path / "x").st_mode & 0o777 == 0o644


def test_weights_that_are_not_finite_leave_nothing(tmp_path):
  named = torch_made.state_dict()
  named["bn1.bias"] = named["bn1.bias"] * np.nan
  weights = torch_weights.from_arrays(
    {name: Stored.of(array) for name, array in named.items()}
  )
  with pytest.raises(WeightsError, match="not finite"):
    torch_made.exported(
      torch_export.write_encoder, weights, str(tmp_path / "out")
    )
  assert os.listdir(tmp_path) == []


def test_only_an_export_is_written_over(tmp_path):
  weights = torch_made.encoder_weights()
  folder = tmp_path / "out"
  for _ in range(2):
    torch_made.exported(torch_export.write_encoder, weights, str(folder))
  assert os.listdir(tmp_path) == ["out"]
  (folder / "export.json").unlink()
  with pytest.raises(UsageError, match="is no export of byol"):
    torch_made.exported(torch_export.write_encoder, weights, str(folder))
  assert (folder / "encoder.py").exists()
  file = tmp_path / "file"
  file.write_text("mine")
  with pytest.raises(UsageError, match="a file of that name"):
    torch_made.exported(torch_export.write_encoder, weights, str(file))
  with pytest.raises(UsageError, match="Cannot write"):
    torch_made.exported(
      torch_export.write_encoder, weights, str(file / "below")
    )
  assert file.read_text() == "mine"


def test_a_folder_of_hugging_face_comes_back(tmp_path):
  weights = torch_made.encoder_weights()
  folder = str(tmp_path / "out")
  rng = np.random.default_rng(0)
  classifier = (rng.normal(size=(12, 3)), rng.normal(size=3))
  for given in (None, classifier):
    torch_made.exported(
      huggingface.write, weights, folder, run={}, classifier=given
    )
    found = torch_weights.read(folder)
    assert_same(found, weights)
    assert len(found.account.ignored) == (1 if given else 0)
  with open(f"{folder}/preprocessor_config.json") as file:
    processor = json.load(file)
  assert processor["size"] == {"shortest_edge": 18}  # 16 / 0.875
  assert processor["crop_size"] == {"height": 16, "width": 16}


def test_the_model_card_tells_the_run():
  run = {
    "license": "apache-2.0",
    "metrics": {"linear|top1": 0.743},
    "data": {"dataset": "imagenet"},
    "config": {"seed": 0},
    "digest": "abc",
  }
  card = model_card.render(torch_made.encoder_weights(), run, classes=None)
  header, text = card.split("---\n")[1:]
  assert 'license: "apache-2.0"' in header
  assert "pipeline_tag: image-feature-extraction" in header
  assert "| linear\\|top1 | 0.743 |" in text
  for part in ('"dataset": "imagenet"', '"seed": 0', '"digest": "abc"'):
    assert part in text
  assert "not stated" not in text
  assert "The processor antialiases what it shrinks" in text
  bare = model_card.render(torch_made.encoder_weights(), {}, classes=5)
  assert "licence of these weights is not stated" in bare
  assert "pipeline_tag: image-classification" in bare
