"""What a config and the command line may hold: one table, complete."""

import ast
import dataclasses
import importlib
import pathlib
import signal

import numpy as np
import pytest

from byol_flax import main
from byol_flax.commands import command_line, config_bounds, config_file
from byol_flax.evaluation import protocols
from byol_flax.models import resnet
from configs import byol, detection, few_label
from input_pipeline import augment
from input_pipeline.errors import UsageError

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
# They have parts of configs.
NO_CONFIGS = {"ablation_rows", "common", "scales", "sets"}
NAMES = sorted({path.stem for path in CONFIGS.glob("*.py")} - NO_CONFIGS)


@pytest.mark.parametrize(
  ("module", "rows"),
  [
    (byol, config_bounds.RUN),
    (few_label, config_bounds.PROTOCOLS["few_label"]),
  ],
)
def test_every_key_has_a_row_and_every_row_a_key(module, rows):
  keys = set(config_bounds.leaves(module.get_config().to_dict()))
  assert keys - {"protocol"} == rows.keys()


def test_every_protocol_has_rows_and_a_config_of_its_name():
  assert protocols.PROTOCOLS.keys() == config_bounds.PROTOCOLS.keys()
  for name in protocols.PROTOCOLS:
    module = importlib.import_module(f"configs.{name}")
    assert module.get_config().protocol == name


def test_an_unknown_protocol_is_told():
  config = few_label.get_config()
  config.protocol = "linear_probe"
  with pytest.raises(
    UsageError, match=r"^protocol is 'linear_probe'; expected"
  ):
    config_bounds.check(config)


@pytest.mark.parametrize("name", [x for x in NAMES if x != "__init__"])
def test_what_ships_is_within_bounds(name):
  config_bounds.check(importlib.import_module(f"configs.{name}").get_config())


def test_names_in_the_table_are_those_of_the_code():
  rows = config_bounds.RUN
  known = rows["model.encoder.architecture"].names
  assert set(known) == set(resnet.ARCHITECTURES)
  fields = {field.name for field in dataclasses.fields(augment.View)}
  for view in ("augment.view1.", "augment.view2."):
    assert fields == {
      key.removeprefix(view) for key in rows if key.startswith(view)
    }


INFINITE = float("inf")
WRONG = {
  "seed": (-1, 2**32, True, 1.5),
  "epochs": (0.0, -1.0, float("nan"), INFINITE, 1e300, np.float64("nan")),
  "warmup_epochs": (-0.5, float("nan")),
  "batch_size": (0, -64, 2**31, True),
  "base_learning_rate": (-0.1, INFINITE, 1e39),
  "base_target_decay": (2.0, -0.1, float("nan")),
  "target_init": ("other", None),
  "dtype": ("float8",),
  "optimizer.momentum": (1.0, -0.1),
  "optimizer.trust_coefficient": (0.0,),
  "model.encoder.architecture": ("resnet51",),
  "model.encoder.stem": ("big",),
  "model.encoder.width": (0.0,),
  "model.projector.hidden_size": (0,),
  "model.batch_norm.decay": (1.0,),
  "model.batch_norm.epsilon": (0.0,),
  "data.name": ("",),
  "augment.size": (0, 70_000),
  "augment.cache": ("disk",),
  "augment.view1.crop_area": (
    (0.5, 0.1),
    (0.08, 1.5),
    (0.0, 1.0),
    (0.5, float("nan")),
    (0.1, 0.2, 0.3),
  ),
  "augment.view2.crop_aspect": ((0.0, 1.0), (0.75, INFINITE)),
  "augment.view1.blur_sigma": ((-0.1, 2.0), (0.1, INFINITE)),
  "augment.view2.flip_probability": (1.1, float("nan")),
  "augment.view1.hue": (0.6,),
  "augment.view1.solarize_threshold": (128.0,),
  "loader.num_workers": (-2, 10**6),
  "loader.num_threads": (-1,),
  "loader.max_unreadable_share": (1.5, -0.1),
  "checkpoint.every_steps": (-1,),
  "checkpoint.every_minutes": (0.0, float("nan")),
  "checkpoint.keep_last": (1,),
  "checkpoint.keep_every": (-1,),
  "deadlines.start_seconds": (0.0, INFINITE),
  "deadlines.silence_seconds": (0.5,),
  "deadlines.stall_seconds": (-1.0,),
  "report.every_steps": (0,),
  "evaluation.neighbours": (0,),
  "evaluation.every_steps": (-1,),
  "evaluation.batch_size": (0,),
  "evaluation.crop_ratio": (0.0, 1.5),
}


@pytest.mark.parametrize("key", WRONG)
def test_impossible_values_are_told(key):
  for value in WRONG[key]:
    config = byol.get_config()
    *sections, name = key.split(".")
    section = config_bounds.value_of(config, ".".join(sections) or "data")
    if not sections:
      section = config
    # Past ml_collections, which keeps some of these out itself.
    with section.ignore_type():
      section[name] = value
    with pytest.raises(UsageError) as error:
      config_bounds.check(config)
    text = str(error.value)
    assert text.startswith(f"{key} is {value!r}; expected ")


def test_a_seed_that_comes_twice_is_told():
  config = detection.get_config()
  config.seeds = (3, 4, 3)
  with pytest.raises(UsageError, match="none of them twice"):
    config_bounds.check(config)


def test_a_wrong_value_of_evaluation_is_told():
  for key, value in (
    ("representations", ("bool",)),
    ("representations", ()),
    ("neighbours", 0),
    ("batch_size", 0),
  ):
    config = few_label.get_config()
    config[key] = value
    with pytest.raises(UsageError, match=f"^{key} is "):
      config_bounds.check(config)


def test_keys_that_nothing_reads_and_keys_that_are_absent_are_told():
  config = byol.get_config()
  config.optimizer.momentun = 0.8
  with pytest.raises(UsageError, match=r"momentun, which.*optimizer.momentum"):
    config_bounds.check(config)
  config = byol.get_config()
  del config.optimizer.momentum
  with pytest.raises(UsageError, match=r"no key optimizer.momentum; expected"):
    config_bounds.check(config)


@pytest.fixture
def signals_kept():
  """The handlers of this process, after a command put its own there."""
  kept = {x: signal.getsignal(x) for x in (signal.SIGTERM, signal.SIGINT)}
  yield
  for number, handler in kept.items():
    signal.signal(number, handler)


@pytest.mark.parametrize(
  "flag",
  ["seed=-1", "seed=4294967296", "epochs=nan", "epochs=1e400", "batch_size=0"],
)
def test_every_command_tells_of_it_before_it_looks_for_data(
  flag, tmp_path, signals_kept
):
  config = [f"--config={CONFIGS}/byol.py", f"--config.{flag}"]
  config.append("--config.data.name=folder:/nowhere")
  key = flag.partition("=")[0]
  for command in (
    ["train", f"--workdir={tmp_path}/run"],
    ["views"],
    ["preflight", "--slice=v3-8"],
    ["benchmark", "step"],
  ):
    with pytest.raises(UsageError, match=f"^{key} is "):
      main.main([*command, *config])
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["views", "--count=17"], "--count is 17; expected .* from 1 to 16"),
    (["benchmark", "step", "--updates=0"], "--updates is 0; expected"),
    (["preflight", "--slice=v3-8", "--price=nan"], "--price is nan; expected"),
    (["preflight", "--slice=v3-8", "--price=1e400"], "--price is inf;"),
    (["prepare", "a", "b", "--workers=-2"], "--workers is -2; .*one per core"),
    (["train", "--workdir=x", "--process-count=0"], "--process-count is 0;"),
    (["train", "--workdir=x", "--process-index=-1"], "--process-index is -1;"),
    (["train", "--workdir="], "--workdir is ''; expected the path"),
  ],
)
def test_impossible_options_are_told(words, message):
  with pytest.raises(UsageError, match=message):
    main.main(words)


def test_every_option_that_is_a_number_has_bounds():
  numbers = set()
  source = pathlib.Path(command_line.__file__).read_text()
  for node in ast.walk(ast.parse(source)):
    match node:
      case ast.Call(args=[ast.Constant(value=flag)], keywords=keywords):
        kinds = {ast.unparse(x.value) for x in keywords if x.arg == "type"}
        if kinds & {"int", "float"}:
          numbers.add(flag)
  assert "--count" in numbers
  assert numbers <= command_line.BOUNDS.keys()


def test_the_launcher_reads_configs_within_bounds():
  with pytest.raises(UsageError, match=r"^epochs is nan"):
    config_file.load_config(
      [f"--config={CONFIGS}/byol.py", "--config.epochs=nan"]
    )
