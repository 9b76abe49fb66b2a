"""The other side computes the features that ours does, from our exports.

It needs what the extra [interop] brings, and is skipped without it.
"""

import dataclasses
import importlib.util
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax.models import byol, resnet
from byol_flax.weights import (
  arrays,
  huggingface,
  torch_export,
  torch_names,
  torch_weights,
)
from byol_flax.weights.errors import WeightsError
from input_pipeline import augment
from tests.weights import made, torch_made
from tests.weights.test_publishers import FILES

torch = pytest.importorskip("torch", reason="the extra [interop] brings it")
safetensors_torch = pytest.importorskip("safetensors.torch")

# Sides that strides divide, and that they do not.
SIZES = ((64, 64), (65, 67))
TWINS = {
  "basic": "basic:2-1-1-1:64-128-256-512:64",
  "bottleneck": "bottleneck:1-2-1-1:256-512-1024-2048:64",
}


def images_of(size, count=3):
  rng = np.random.default_rng(size)
  return rng.integers(0, 256, (count, *size, 3), np.uint8)


def ours(weights, images):
  """Features [B, F] that this project computes from weights."""
  types = {"dtype": jnp.float32, "param_dtype": jnp.float32}
  model = weights.model
  module = byol.make_encoder(
    **model["encoder"],
    initializer="fan_in",
    input_scaling=model["input_scaling"],
    norm=resnet.make_norm(**model["batch_norm"], **types),
    **types,
  )
  variables = arrays.read(weights.encoder)
  apply = jax.jit(lambda v, x: module.apply(v, x, train=False))
  return np.asarray(apply(variables, images[:, None])[:, 0])


def assert_close(found, expected):
  """At most 1e-4 of the features' scale apart."""
  found = np.asarray(found)
  assert found.shape == expected.shape
  assert np.isfinite(expected).all()
  assert np.std(expected, axis=0).max() > 0  # they depend on the image
  assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def normalised(images):
  """What torchvision's networks take: float32 [B, 3, H, W]."""
  mean, std = torch_export.Description().normalisation
  x = (images / 255 - np.array(mean)) / np.array(std)
  return torch.tensor(x.transpose(0, 3, 1, 2).astype(np.float32))


def module_of(folder):
  """The module that an export ships, loaded as its README says."""
  spec = importlib.util.spec_from_file_location(
    "encoder", folder / "encoder.py"
  )
  shipped = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(shipped)
  return shipped.load(folder)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("stem", ["imagenet", "small"])
@pytest.mark.parametrize("shortcut", ["projection", "identity"])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_the_shipped_module_computes_our_features(
  tmp_path, kind, shortcut, stem, padding
):
  model = made.model_with(
    architecture=f"{kind}:2-1:8-16:8",
    shortcut=shortcut,
    stem=stem,
    padding=padding,
  )
  model |= {"batch_norm": {"decay": 0.9, "epsilon": 1e-3}}
  model |= {"input_scaling": "unit" if stem == "small" else "imagenet"}
  made_weights = made.weights(model, modules=["encoder"])
  weights = dataclasses.replace(made_weights, model=model)
  folder = tmp_path / "out"
  torch_made.exported(torch_export.write_encoder, weights, str(folder))
  module = module_of(folder)
  for size in SIZES:
    images = images_of(size)
    expected = ours(weights, images)
    with torch.no_grad():
      assert_close(module(torch.tensor(images)), expected)
      planes = torch.tensor(images.transpose(0, 3, 1, 2).copy())
      assert_close(module(planes), expected)
    with pytest.raises(TypeError, match="Expected pixels, uint8"):
      module(planes.float())


def twin_weights(kind):
  """Weights of an encoder that torchvision and Hugging Face have too."""
  model = made.model_with(
    architecture=TWINS[kind],
    stem="imagenet",
    shortcut="identity",
    padding="symmetric",
  )
  return made.weights(model, modules=["encoder"])


def torchvision_module(kind):
  vision = pytest.importorskip("torchvision")
  blocks = torch_export.resnet.architecture_of(TWINS[kind]).blocks
  block = "BasicBlock" if kind == "basic" else "Bottleneck"
  models = vision.models.resnet
  return models.ResNet(getattr(models, block), list(blocks))


@pytest.mark.parametrize("kind", TWINS)
def test_torchvision_computes_our_features(tmp_path, kind):
  weights = twin_weights(kind)
  folder = tmp_path / "out"
  torch_made.exported(torch_export.write_encoder, weights, str(folder))
  module = torchvision_module(kind)
  module.fc = torch.nn.Identity()
  named = safetensors_torch.load_file(folder / "model.safetensors")
  module.load_state_dict(named, strict=True)
  module.eval()
  for size in SIZES:
    images = images_of(size)
    with torch.no_grad():
      assert_close(module(normalised(images)), ours(weights, images))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_readme_of_an_export_loads_torchvision(tmp_path, name, monkeypatch):
  pytest.importorskip("torchvision")
  model = made.model_with(
    architecture=name,
    shortcut="identity" if name == "resnet18" else "projection",
    padding="symmetric",
  )
  folder = tmp_path / "out"
  torch_made.exported(
    torch_export.write_encoder,
    made.weights(model, modules=["encoder"]),
    str(folder),
  )
  readme = (folder / "README.md").read_text()
  blocks = [part.split("```")[0] for part in readme.split("```python")[1:]]
  monkeypatch.chdir(folder)
  images = torch.tensor(images_of((64, 64)))
  for block in blocks:
    monkeypatch.syspath_prepend(str(folder))
    scope = {"images": images}
    exec(block, scope)
    if "features" in scope:
      features = scope["features"]
    module = scope["model"].eval()
  with torch.no_grad():
    twin = module(normalised(images.numpy()))
  assert_close(twin, features.detach().numpy())


@pytest.mark.parametrize("file", ["zip", "row"])
@pytest.mark.parametrize("kind", TWINS)
def test_features_of_torchvision_are_computed_by_us(tmp_path, kind, file):
  torch.manual_seed(0)
  module = torchvision_module(kind)
  warmed(module, lambda: module(normalised(images_of((64, 64), 8))))
  path = tmp_path / "a.pth"
  torch.save(
    {"model": module.state_dict(), "args": None},
    path,
    _use_new_zipfile_serialization=file == "zip",
  )
  weights = torch_weights.read(str(path))
  assert weights.account.ignored["model.fc."] == "It belongs to a classifier."
  module.fc = torch.nn.Identity()
  for size in SIZES:
    images = images_of(size)
    with torch.no_grad():
      assert_close(ours(weights, images), module(normalised(images)).numpy())


def warmed(module, forward):
  """Moves the averages away from 0 and 1; leaves the module for inference."""
  module.train()
  with torch.no_grad():
    for _ in range(3):
      forward()
  module.eval()


@pytest.mark.parametrize("classes", [None, 5])
@pytest.mark.parametrize("kind", TWINS)
def test_transformers_computes_our_features(tmp_path, kind, classes):
  transformers = pytest.importorskip("transformers")
  weights = twin_weights(kind)
  folder = str(tmp_path / "out")
  rng = np.random.default_rng(0)
  size = weights.encoder["params"]["group3_block0"]["norm0"]["scale"].shape[0]
  size *= 4 if kind == "bottleneck" else 1
  classifier = (rng.normal(size=(size, 5)), rng.normal(size=5))
  torch_made.exported(
    huggingface.write,
    weights,
    folder,
    run={},
    classifier=classifier if classes else None,
  )
  auto = transformers.AutoModel
  if classes:
    auto = transformers.AutoModelForImageClassification
  module, told = auto.from_pretrained(folder, output_loading_info=True)
  assert not any(told.values()), told
  images = images_of(SIZES[1])
  expected = ours(weights, images)
  with torch.no_grad():
    output = module(normalised(images))
  if classes:
    assert_close(output.logits, expected @ classifier[0] + classifier[1])
  else:
    assert_close(output.pooler_output.flatten(1), expected)


def test_the_processor_of_transformers_makes_our_crop(tmp_path):
  transformers = pytest.importorskip("transformers")
  pytest.importorskip("torchvision")
  weights = dataclasses.replace(
    twin_weights("basic"), image_size=56, crop_ratio=0.875
  )
  folder = str(tmp_path / "out")
  torch_made.exported(huggingface.write, weights, folder, run={})
  processor = transformers.AutoImageProcessor.from_pretrained(folder)
  # Smooth, as the two interpolations differ at edges.
  y, x = np.mgrid[:80, :80] / 16
  image = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1)
  image = np.round(127.5 + 127.5 * image).astype(np.uint8)
  theirs = processor(image, return_tensors="np")["pixel_values"]
  crop = augment.EvalCrop(size=56, ratio=0.875).map({"image": image})["image"]
  expected = normalised(crop[None]).numpy()
  assert theirs.shape == expected.shape
  assert np.abs(theirs - expected).mean() < 0.02  # about 1 of 255 levels


@pytest.mark.parametrize("kind", TWINS)
def test_features_of_transformers_are_computed_by_us(tmp_path, kind):
  transformers = pytest.importorskip("transformers")
  architecture = torch_export.resnet.architecture_of(TWINS[kind])
  config = transformers.ResNetConfig(
    layer_type=kind,
    depths=list(architecture.blocks),
    hidden_sizes=list(architecture.channels),
  )
  torch.manual_seed(0)
  module = transformers.ResNetForImageClassification(config)
  warmed(module, lambda: module(normalised(images_of((64, 64), 8))))
  module.save_pretrained(tmp_path)
  weights = torch_weights.read(str(tmp_path))
  for size in SIZES:
    images = images_of(size)
    with torch.no_grad():
      output = module.resnet(normalised(images)).pooler_output.flatten(1)
    assert_close(ours(weights, images), output.numpy())


class Net(torch.nn.Module):
  """A class of a program of somebody's own."""


@pytest.mark.parametrize("file", ["zip", "row"])
def test_a_module_saved_as_a_whole_is_refused(tmp_path, file):
  path = tmp_path / "a.pth"
  torch.save(Net(), path, _use_new_zipfile_serialization=file == "zip")
  with pytest.raises(WeightsError, match=r"asks for .*test_interop\.Net"):
    torch_weights.read(str(path))


@pytest.mark.parametrize("file", ["zip", "row"])
@pytest.mark.parametrize("publisher", FILES)
def test_files_of_every_publisher_are_read(tmp_path, publisher, file):
  prefix, names, others = FILES[publisher]
  naming = next(
    naming
    for naming in torch_names.NAMINGS
    if list(torch_made.state_dict(naming)) == names
  )
  named = {
    prefix + name: torch.nn.Parameter(torch.tensor(a), a.dtype == np.float32)
    for name, a in torch_made.state_dict(naming).items()
  }
  named |= {f"{o}0.x" if o[-1] == "." else o: torch.ones(2) for o in others}
  # A publisher's dicts, one in another as the dots at the top say.
  content = named
  for part in reversed(prefix.split(".")[:1]):
    if part.endswith("state_dict"):
      inside = {
        k.removeprefix(f"{part}."): v
        for k, v in named.items()
        if k.startswith(f"{part}.")
      }
      beside = {k: v for k, v in named.items() if not k.startswith(f"{part}.")}
      content = {part: inside, "epoch": 3, **beside}
  path = str(tmp_path / "a.pth.tar")
  torch.save(content, path, _use_new_zipfile_serialization=file == "zip")
  found = torch_weights.read(path)
  assert found.details["prefix"] == prefix
  expected = torch_made.encoder_weights()
  theirs = dict(arrays.flat(arrays.read(found.encoder)))
  for name, array in arrays.flat(arrays.read(expected.encoder)):
    np.testing.assert_array_equal(theirs[name], array)


def test_a_training_checkpoint_of_torch_is_read(tmp_path):
  """Optimizer, half precision and settings lie beside the weights."""
  import argparse
  import collections
  import pathlib

  module = torchvision_module("basic")
  optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
  module(normalised(images_of((32, 32), 2))).sum().backward()
  optimizer.step()
  module.half()
  path = str(tmp_path / "a.ckpt")
  torch.save(
    {
      "state_dict": module.state_dict(),
      "optimizer_states": [optimizer.state_dict()],
      "lr_schedulers": [{"base_lrs": [0.1], "last_epoch": np.float64(3)}],
      "hyper_parameters": argparse.Namespace(path=pathlib.Path("/x")),
      "loops": collections.defaultdict(int, a=1),
      "device": torch.device("cpu"),
      "shape": torch.Size([1]),
      "dtype": torch.float32,
    },
    path,
  )
  found = torch_weights.read(path)
  assert found.details["types"] == ["float16"]
  kernel = arrays.read(found.encoder)["params"]["stem_conv"]["kernel"]
  theirs = module.conv1.weight.detach().float().numpy()
  np.testing.assert_array_equal(kernel, theirs.transpose(2, 3, 1, 0))
  assert "optimizer_states." in found.account.ignored
  assert "Namespace" in found.account.ignored["hyper_parameters"]


def test_torch_reads_what_our_tests_write(tmp_path):
  """So that tests without PyTorch read files as it writes them."""
  named = torch_made.state_dict()
  for name, write in torch_made.WRITERS.items():
    path = tmp_path / name
    path.write_bytes(write({"model": torch_made.tensors(named)}))
    theirs = torch.load(path, weights_only=True)["model"]
    assert theirs.keys() == named.keys()
    for key, array in named.items():
      np.testing.assert_array_equal(theirs[key].numpy(), array)
  assert pickle.loads(pickle.dumps(torch_made.MACHINE)) == torch_made.MACHINE


def test_a_file_without_checksums_is_read(tmp_path):
  path = str(tmp_path / "a.pth")
  named = {k: torch.tensor(v) for k, v in torch_made.state_dict().items()}
  torch.serialization.set_crc32_options(False)
  try:
    torch.save(named, path)
  finally:
    torch.serialization.set_crc32_options(True)
  assert torch_weights.read(path).account.matched == len(named)
