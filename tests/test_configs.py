"""Every config loads with no argument and builds a program."""

import importlib
import pathlib
import re

import jax
import pytest

from byol_flax import sharding
from byol_flax.models import resnet
from byol_flax.pretrain import build, inputs
from configs import (
  byol,
  byol_digits,
  common,
  detection,
  linear,
  semi_supervised,
  simclr,
)
from input_pipeline.errors import UsageError
from tests.models import test_models

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
RUNS = [*sorted(path.stem for path in CONFIGS.glob("byol*.py")), "simclr"]
TABLE_9 = {  # (depth, width): millions of weights
  **{(50, 1): 24, (50, 2): 94, (50, 3): 211, (50, 4): 375},
  **{(101, 1): 43, (101, 2): 170, (101, 3): 382},
  **{(152, 1): 58, (152, 2): 232, (152, 3): 522},
  **{(200, 1): 63, (200, 2): 250},
}
DATA = {  # name: images of the training split, classes
  "imagenet2012": (1281167, 1000),
  "places365_small": (1803460, 365),
  "imagenette/160px-v2": (9469, 10),
  "cifar10": (50_000, 10),
  "digits": (1437, 10),
}


def load(name):
  return importlib.import_module(f"configs.{name}").get_config()


def test_detection_as_the_appendix_has_it():
  """App. D.5: 1.5 M steps; the longest edge from 480 to 1024; no flip."""
  config = detection.get_config("appendix=1")
  drops = [round(config.steps * x) for x in config.drops]
  assert (config.steps, drops) == (1_500_000, [1_000_000, 1_200_000])
  assert (config.learning_rate, config.flip_probability) == (1e-3, 0)
  assert config.encoder == config.batch_norm == "frozen"
  edges = [4 / 3 * x for x in config.short_edges]  # of photographs of 4 : 3
  assert (min(edges), max(edges), config.longest_edge) == (480, 1024, 1024)
  unlike = detection.get_config()
  assert unlike.encoder != "frozen"
  assert unlike.steps != config.steps


# Those of width 2 or 3 differ from their neighbours in that number only.
@pytest.mark.slow
@pytest.mark.parametrize(
  "name", [name for name in RUNS if not re.search(r"x[23]$", name)]
)
def test_every_run_builds(name):
  config = load(name)
  examples, classes = DATA[config.data.name]
  # Whole networks are counted in test_models.py; deep ones take long to trace.
  encoder = resnet.architecture_of(config.model.encoder.architecture)
  built = build.build(
    config,
    sharding.make_mesh(),
    num_examples=examples,
    num_classes=classes,
    blocks=(1,) * len(encoder.blocks),
  )
  inputs.make_two_views(config.augment)
  online = built.abstract_state.online.params
  assert online["classifier"]["kernel"].shape[1] == classes
  assert config.evaluation.batch_size % 8 == 0 or name in (
    "byol_digits",
    "byol_cifar10",
  )


def test_all_published_encoders_have_a_config():
  for (depth, width), millions in TABLE_9.items():
    name = f"byol_r{depth}x{width}"
    encoder = load(name).model.encoder
    assert (encoder.architecture, encoder.width) == (f"resnet{depth}", width)
    count = test_models.COUNTS[encoder.architecture, width]
    assert round(count / 1e6) == millions
    assert f" {millions}M parameters" in (CONFIGS / f"{name}.py").read_text()


@pytest.mark.slow
def test_steps_of_the_base_run():  # paper.md §3.3
  for epochs, steps in ((40, 12_511), (100, 31_278), (300, 93_835)):
    config = byol.get_config(f"epochs={epochs}")
    mesh = sharding.make_mesh(jax.devices()[:1])
    config.model.encoder.architecture = "resnet8"
    built = build.build(config, mesh, num_examples=1281167, num_classes=1000)
    assert built.total_steps == steps


@pytest.mark.slow
def test_dtype_float64_is_that_of_everything():
  config = byol_digits.get_config()
  config.dtype = "float64"

  def built_here():
    mesh = sharding.make_mesh()
    return build.build(config, mesh, num_examples=1437, num_classes=10)

  with jax.enable_x64(True):
    built = built_here()
    arrays = built.abstract_state, built.abstract_batch
    operations = str(jax.make_jaxpr(built.step_fn)(*arrays))
  assert "f64[64,2,32]" in operations  # projections
  assert "f32[" not in operations
  assert "f16[" not in operations
  # Without JAX's leave it would have become float32.
  with pytest.raises(UsageError, match="JAX_ENABLE_X64=1"):
    built_here()


@pytest.mark.slow
@pytest.mark.parametrize("gradient_dtype", ["params", "activations"])
def test_gradients_have_the_type_that_is_asked_for(gradient_dtype):
  config = byol_digits.get_config()
  config.update(dtype="bfloat16", gradient_dtype=gradient_dtype)
  mesh = sharding.make_mesh()
  built = build.build(config, mesh, num_examples=1437, num_classes=10)
  arrays = built.abstract_state, built.abstract_batch
  operations = str(jax.make_jaxpr(built.step_fn)(*arrays))
  wide = re.findall(r":f32\[[\d,]+\] = conv_general_dilated", operations)
  convolutions = sum(
    path[-1].key == "kernel" and leaf.ndim == 4
    for path, leaf in jax.tree.leaves_with_path(
      built.abstract_state.online.params
    )
  )
  assert len(wide) == (convolutions if gradient_dtype == "params" else 0)


def test_presets_are_the_papers():  # paper.md §3.3
  table = {
    (40, 4096): (7.2, 1e-6, 0.97),
    (100, 4096): (7.2, 1e-6, 0.99),
    (300, 4096): (4.8, 1e-6, 0.99),
    (1000, 4096): (3.2, 1.5e-6, 0.996),
    (1000, 512): (0.8, 1.5e-6, 0.9995),
  }
  assert set(table) == set(byol.PRESETS)
  for (epochs, batch_size), (peak, decay, tau) in table.items():
    config = byol.get_config(f"epochs={epochs},batch_size={batch_size}")
    applied = config.base_learning_rate * batch_size / 256
    assert applied == pytest.approx(peak)
    assert config.optimizer.weight_decay == decay
    assert config.base_target_decay == tau


def test_views_are_table_6():
  augment = byol.get_config().augment
  shared = {
    "crop_area": (0.08, 1.0),
    "crop_aspect": (3 / 4, 4 / 3),
    "crop_sampling": "clamped",
    "flip_probability": 0.5,
    "jitter_probability": 0.8,
    "brightness": 0.4,
    "brightness_mode": "add",
    "contrast": 0.4,
    "saturation": 0.2,
    "hue": 0.1,
    "grayscale_probability": 0.2,
    "blur_sigma": (0.1, 2.0),
    "solarize_threshold": 0.5,
  }
  own = {
    "view1": {"blur_probability": 1.0, "solarize_probability": 0.0},
    "view2": {"blur_probability": 0.1, "solarize_probability": 0.2},
  }
  for name, values in own.items():
    assert augment[name].to_dict() == shared | values


@pytest.mark.slow
def test_simclr_is_its_authors():  # paper.md §4.8 and §9.4
  config = simclr.get_config("width=2,epochs=100")
  assert (config.epochs, config.warmup_epochs) == (100, 10)
  applied = config.base_learning_rate * config.batch_size / 256
  assert applied == pytest.approx(4.8)
  assert config.augment.view1 == config.augment.view2
  view = config.augment.view1.to_dict()
  plain = byol.get_config().augment.view1.to_dict()
  assert {key: value for key, value in view.items() if value != plain[key]} == {
    "crop_sampling": "retried",
    "brightness": 0.8,
    "contrast": 0.8,
    "saturation": 0.8,
    "hue": 0.2,
    "blur_probability": 0.5,
  }
  mesh = sharding.make_mesh(jax.devices()[:1])
  config.batch_size = 16
  built = build.build(config, mesh, num_examples=10_000, num_classes=0)
  params = built.abstract_state.online.params
  assert set(params) == {"encoder", "projector"}
  shapes = jax.tree.map(lambda x: x.shape, params["projector"])
  assert shapes == {
    "linear0": {"kernel": (4096, 4096), "bias": (4096,)},
    "norm": {"scale": (4096,), "offset": (4096,)},
    "linear1": {"kernel": (4096, 128)},
    "final_norm": {"scale": (128,)},
  }


@pytest.mark.parametrize(
  ("config", "rate", "epochs"),  # paper.md §5.4, the rate as it is applied
  [
    (linear.get_config("simclr=1"), 1.6, 90),
    (semi_supervised.get_config("simclr=1,share=0.01"), 0.8, (60,)),
    (semi_supervised.get_config("simclr=1,share=0.1"), 0.8, (30,)),
  ],
)
def test_evaluations_of_simclr_are_its_authors(config, rate, epochs):
  assert config.batch_size == 4096
  applied = [x * config.batch_size / 256 for x in config.learning_rates]
  assert applied == pytest.approx([rate])
  assert config.epochs == epochs


def test_simclr_needs_a_share_whose_epochs_are_known():
  for arg in ("simclr=1", "simclr=1,share=0.2"):
    with pytest.raises(ValueError, match=r"write simclr=1,share=0\.01 or"):
      semi_supervised.get_config(arg)


@pytest.mark.parametrize(
  ("arg", "message"),
  [
    ("epoch=100", "Unknown config argument 'epoch'.*mean 'epochs'"),
    ("epochs=ten", "epochs is 'ten'; expected int"),
    ("epochs", "has no value"),
    ("epochs=50", "no preset for epochs=50.*epochs=300,batch_size=4096"),
  ],
)
def test_bad_arguments_are_told(arg, message):
  with pytest.raises(ValueError, match=message):
    byol.get_config(arg)


def test_arguments_are_typed_and_later_ones_win():
  found = common.parse_arg("a=2,b=x,a=3", a=1, b="y", c=0.5)
  assert found == {"a": 3, "b": "x", "c": 0.5}
