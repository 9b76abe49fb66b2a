"""The model section of a config, found again from the shapes it makes."""

import pytest

from byol_flax.models import resnet
from byol_flax.weights import arrays, structure
from byol_flax.weights.errors import WeightsError
from configs import byol as byol_config
from tests.weights import made


def shapes_of(model):
  """Shapes of the parameters of a network."""
  return made.shapes_of(model)["params"]


def model_with(**encoder):
  model = byol_config.get_config().model.to_dict()
  return model | {"encoder": model["encoder"] | encoder}


def found(params, padding="same"):
  model = structure.model_of(params, padding=padding, decay=0.9, epsilon=1e-5)
  return structure.completed(model, byol_config.get_config().model.to_dict())


@pytest.mark.slow
@pytest.mark.parametrize("width", [1.0, 2.0])
@pytest.mark.parametrize("name", resnet.ARCHITECTURES)
def test_every_architecture_is_found(name, width):
  stem = "small" if name == "resnet8" else "imagenet"
  model = model_with(architecture=name, width=width, stem=stem)
  assert found(shapes_of(model)) == model


@pytest.mark.parametrize(
  "options",
  [
    {"architecture": "resnet18", "shortcut": "identity"},
    {"architecture": "resnet18", "stem": "small", "padding": "symmetric"},
    {"architecture": "bottleneck:2-1:16-32:64", "width": 1.0},
  ],
)
def test_options_are_found(options):
  model = model_with(**options)
  padding = model["encoder"]["padding"]
  assert found(shapes_of(model), padding) == model


def test_heads_are_found():
  model = model_with(architecture="resnet18")
  model["projector"] |= {"layers": 3, "hidden_size": 32, "output_size": 16}
  model["projector"] |= {"final_norm": True}
  model["predictor"] |= {"layers": 1, "hidden_size": 16, "output_size": 16}
  model["predictor"] |= {"final_bias": True}
  assert found(shapes_of(model)) == model


def without(params, path):
  leaves = dict(arrays.flat(params))
  return arrays.nested({k: v for k, v in leaves.items() if path not in k})


@pytest.mark.parametrize(
  ("gone", "said"),
  [
    ("stem_conv", "no blocks and stem"),
    ("group2_block0", r"Group 2 has the blocks \[1\]"),
    ("group1_", r"Group 1 has the blocks \[\]"),
    ("group", "no blocks and stem"),
  ],
)
def test_what_is_no_resnet_is_told(gone, said):
  params = shapes_of(model_with(architecture="resnet18"))
  with pytest.raises(WeightsError, match=said):
    found(without(params, gone))


def test_blocks_without_number_are_told():
  encoder = shapes_of(model_with(architecture="resnet18"))["encoder"]
  block = encoder["group3_block1"]
  more = {f"group3_block{n}": block for n in range(1, 999)}
  with pytest.raises(WeightsError, match="has 1005 blocks; at most 1000"):
    found({"encoder": encoder | more})


def test_heads_that_are_absent_are_those_of_the_config():
  model = model_with(architecture="resnet18")
  params = shapes_of(model)
  assert found({"encoder": params["encoder"]}) == model
  headless = found({name: params[name] for name in ("encoder", "projector")})
  assert headless["predictor"] == model["predictor"] | {"layers": 0}
