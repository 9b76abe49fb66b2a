"""The `byol` command: help, mistakes, exit codes."""

import importlib
import pathlib
import re
import sys

import cv2
import numpy as np
import pytest

from byol_flax.commands import config_file
from input_pipeline.errors import UsageError
from tests.forks import byol

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = f"--config={ROOT}/configs/byol_digits.py"


def mistake(*arguments):
  """Standard error of a command that must be refused in a sentence."""
  result = byol(*arguments)
  assert result.returncode == 2, result.stderr
  assert "Traceback" not in result.stderr
  assert "compiling" not in result.stderr
  assert result.stderr.startswith("byol: ")
  return result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
  ("command", "words"),
  [
    ([], ["train", "evaluate", "views"]),
    (["train"], ["--workdir", "--restart", "--config=FILE[:ARG]"]),
    (["evaluate"], ["--workdir", "--config=FILE[:ARG]"]),
    (["views"], ["--out", "--count", "--config=FILE[:ARG]"]),
  ],
)
def test_help(command, words):
  result = byol(*command, "--help")
  assert result.returncode == 0
  assert all(word in result.stdout for word in words)


def config(*flags):
  return config_file.load_config([DIGITS, *flags])


def test_overrides_are_typed():
  found = config("--config.batch_size=32", "--config.report.view_hashes=true")
  assert found.batch_size == 32
  assert found.report.view_hashes is True
  assert config().batch_size != 32


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--config.optimizer.momentun=0.8"], "momentum"),
    (["--config.batchsize=64"], "batch_size"),
    (["--config.batch_size=many"], "batch_size"),
  ],
)
def test_bad_overrides_are_told(flags, message):
  with pytest.raises(UsageError, match=message):
    config(*flags)


def test_what_ships_is_found_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ("byol.py:epochs=100", "configs/byol.py:epochs=100"):
    assert config_file.load_config([f"--config={name}"]).epochs == 100
  with pytest.raises(UsageError, match=r"no config file 'mine/byol\.py'"):
    config_file.load_config(["--config=mine/byol.py"])
  (tmp_path / "configs").mkdir()
  own = "from configs import byol\n\ndef get_config(arg):\n"
  (tmp_path / "configs" / "byol.py").write_text(
    own + "  config = byol.get_config(arg)\n  config.seed = 7\n  return config"
  )
  assert config_file.load_config(["--config=configs/byol.py"]).seed == 7


def test_a_package_called_configs_neither_disturbs_nor_is_disturbed(
  tmp_path, monkeypatch
):
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "__init__.py").write_text("theirs = True")
  (tmp_path / "configs" / "byol.py").write_text("raise RuntimeError('theirs')")
  for name in [name for name in sys.modules if name.startswith("configs")]:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.syspath_prepend(tmp_path)
  theirs = importlib.import_module("configs")
  assert theirs.theirs
  assert config_file.load_config([DIGITS]).data.name == "digits"
  assert sys.modules["configs"] is theirs
  assert "configs.byol" not in sys.modules
  (tmp_path / "mine.py").write_text("\nfrom configs import mine")
  with pytest.raises(UsageError, match=r"in line 2.*needs another name"):
    config_file.load_config([f"--config={tmp_path}/mine.py"])


def test_bad_config_files_are_told(tmp_path):
  with pytest.raises(UsageError, match="One --config"):
    config_file.load_config([])
  with pytest.raises(
    UsageError, match=r"no config file 'nowhere\.py'.*are in /"
  ):
    config_file.load_config(["--config=nowhere.py"])
  for text, words in (
    ("a = 1", "KeyError"),
    ("def get_config(:", "SyntaxError"),
    ("import nothing_of_that_name", "ModuleNotFoundError in line 1"),
    ("def get_config(arg):\n  return arg.a", "AttributeError in line 2"),
  ):
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(
      UsageError, match=rf"config\.py is no config file \({words}"
    ):
      config_file.load_config([f"--config={tmp_path}/config.py"])
  (tmp_path / "config.py").write_text("def get_config(arg):\n  return {}")
  with pytest.raises(UsageError, match="returned dict; expected a ConfigDict"):
    config_file.load_config([f"--config={tmp_path}/config.py"])
  with pytest.raises(UsageError, match="no preset for epochs=7"):
    config_file.load_config([f"--config={ROOT}/configs/byol.py:epochs=7"])


@pytest.mark.slow
def test_unknown_flags_are_told():
  result = byol("train", DIGITS, "--workdir=x", "--wrokdir=y")
  assert result.returncode == 2
  assert "unknown argument --wrokdir=y" in result.stderr


MISTAKES = {
  "architecture": (
    ["--config.model.encoder.architecture=resnet51"],
    "resnet51.*one of.*resnet50",
  ),
  "dtype": (["--config.dtype=float8"], "float8.*bfloat16"),
  "data set": (["--config.data.name=cifar11"], "cifar1[01]"),
  "split": (["--config.data.split=trian"], "train"),
  "batch": (
    ["--config.batch_size=130", "--config.accumulation_steps=4"],
    "multiple of 4.*128 or 132",
  ),
  "report": (["--config.report.every_steps=0"], "report.every_steps is 0"),
  "size": (["--config.augment.size=0"], "augment.size is 0"),
  "neighbours": (["--config.evaluation.neighbours=0"], "neighbours is 0"),
  "evaluation batch": (
    ["--config.evaluation.batch_size=0"],
    "evaluation.batch_size is 0",
  ),
  "view": (
    ["--config.augment.view1.blur_probability=1.5"],
    "blur_probability.*1.5",
  ),
  "folder": (["--config.data.name=folder:/nowhere/at/all"], "/nowhere/at/all"),
  "epochs": (["--config.epochs=1"], "updates"),
  "not prepared": (
    ["--config.data.name=cifar10", "--config.loader.data_dir=/nowhere"],
    "download_and_prepare",
  ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_before_anything_compiles(name, tmp_path):
  flags, message = MISTAKES[name]
  workdir = tmp_path / "run"
  text = mistake("train", DIGITS, f"--workdir={workdir}", *flags)
  assert re.search(message, text), text
  assert not list(workdir.glob("checkpoints/*"))


@pytest.mark.slow
def test_a_workdir_that_cannot_be_made_is_told(tmp_path):
  (tmp_path / "file").write_text("")
  assert "cannot be written" in mistake(
    "train", DIGITS, f"--workdir={tmp_path}/file/run"
  )


@pytest.mark.slow
def test_a_config_of_the_other_kind_is_told(tmp_path):
  workdir = f"--workdir={tmp_path}"
  evaluate = f"--config={ROOT}/configs/few_label.py"
  assert "`byol train` got the other" in mistake("train", evaluate, workdir)
  assert "`byol evaluate` got the other" in mistake("evaluate", DIGITS, workdir)


@pytest.mark.slow
def test_a_suite_without_an_encoder_is_told(tmp_path):
  workdir = f"--workdir={tmp_path}"
  assert "A suite is for" in mistake("evaluate", "--suite=paper:knn", workdir)


@pytest.mark.slow
def test_what_preflight_does_not_do_is_told():
  asked = ("preflight", "--slice=v3-8", "--encoder=random:configs/byol.py")
  for flags, told in (
    (["--config=configs/linear.py", "--fast"], "--fast is for pre-training"),
    (["--config=configs/paper.py"], "such as --config=configs/linear.py."),
  ):
    assert told in mistake(*asked, *flags)


@pytest.mark.slow
def test_an_empty_workdir_is_not_this_folder():
  assert "--workdir is ''" in mistake("train", DIGITS, "--workdir=")


@pytest.mark.slow
def test_evaluating_nothing_is_told(tmp_path):
  evaluate = f"--config={ROOT}/configs/evaluate.py"
  text = mistake("evaluate", evaluate, f"--workdir={tmp_path}")
  assert "no checkpoint" in text


@pytest.mark.slow
def test_views_of_a_folder(tmp_path):
  rng = np.random.default_rng(0)
  for i in range(5):
    image = rng.integers(0, 256, (40 + i, 50, 3), np.uint8)
    cv2.imwrite(str(tmp_path / f"{i}.png"), image)
  (tmp_path / "notes.psd").touch()
  (tmp_path / "5.jfif").write_bytes(b"damaged")
  out = tmp_path / "grid.png"
  result = byol(
    "views",
    f"--config={ROOT}/configs/byol.py",
    f"--out={out}",
    "--count=6",
    f"--config.data.name=folder:{tmp_path}",
    "--config.data.split=all",
    "--config.augment.size=64",
  )
  assert result.returncode == 0, result.stderr
  assert cv2.imread(str(out)).std() > 10
  assert "6 images of" in result.stdout
  assert "no classes; ignored 1 file: 1 .psd\n" in result.stdout
  assert "1 of the 6 images drawn could not be read" in result.stdout
  assert "--count is 17" in mistake(
    "views", f"--config={ROOT}/configs/byol.py", "--count=17"
  )
