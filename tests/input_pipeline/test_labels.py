"""Splits without labels where labels are needed, told at the start."""

import re
import sys
import types

import pytest

from byol_flax.evaluation import protocol
from byol_flax.runs import distributed
from configs import byol_digits, few_label
from input_pipeline import labels
from input_pipeline.errors import UsageError
from input_pipeline.sources import open_source
from tests.forks import byol
from tests.input_pipeline.test_folders import make_folder
from tests.runs.test_older_records import FLAGS


@pytest.fixture
def flat(tmp_path):
  """A folder whose test images lie in no classes, but for one in sixty."""
  train = [f"train/{k}/{i}.png" for k in "ab" for i in range(4)]
  test = [f"test/{i}.png" for i in range(5)]
  return make_folder(tmp_path, [*train, *test])


def test_a_flat_split_is_refused_with_the_first_names(flat, tmp_path):
  assert labels.check_labelled(open_source(flat, "train"), "x") == ""
  message = (
    r"evaluation\.split=test needs .* of the 5 .* none has one: "
    rf"{tmp_path}/test/0.png, .*2.png, \.\.\.\. Put each .* {tmp_path}/test/CLA"
  )
  with pytest.raises(UsageError, match=message):
    labels.check_labelled(open_source(flat, "test"), "evaluation.split=test")
  # A part counts for itself.
  with pytest.raises(UsageError, match="of the 2 images"):
    labels.check_labelled(open_source(flat, "test[3:]"), "x")


def test_some_without_labels_do_not_count_and_are_told(flat, tmp_path):
  make_folder(tmp_path, ["test/a/9.png"])
  told = labels.check_labelled(open_source(flat, "test"), "test_split=test")
  assert re.match(r"test_split=test: 5 of 6 images of .* do not count", told)


@pytest.mark.slow
def test_train_says_so_before_it_compiles(flat, tmp_path):
  result = byol(
    "train",
    *FLAGS,
    f"--workdir={tmp_path}/run",
    f"--config.data.name={flat}",
    "--config.batch_size=4",
    "--config.evaluation.batch_size=4",
  )
  assert result.returncode == 2
  assert "byol: evaluation.split=test needs images with" in result.stderr
  assert "compiling" not in result.stderr


def setting_of(config):
  return protocol.Setting(
    config=config,
    encoder=types.SimpleNamespace(config=byol_digits.get_config()),
    workdir="/nowhere",
    mesh=None,
    processes=distributed.Processes(),
    tell=print,
    console=sys.stderr,
  )


@pytest.mark.parametrize(
  ("name", "data_dir", "given", "expected"),
  [
    ("cifar10", "/data", 0, 2),
    ("cifar10", "gs://bucket/tfds", 0, 16),
    ("cifar10", "gs://bucket/tfds", 3, 3),
    ("folder:/data", "gs://bucket/tfds", 0, 2),
  ],
)
def test_evaluations_read_with_more_threads_from_a_bucket(
  name, data_dir, given, expected
):
  config = few_label.get_config()
  config.data_name, config.data_dir = name, data_dir
  config.num_threads = given
  assert setting_of(config).num_threads == expected


def test_evaluate_says_so_when_it_opens_its_splits(flat):
  config = few_label.get_config()
  config.data_name, config.data_dir = flat, "/nowhere"
  setting = setting_of(config)
  with pytest.raises(UsageError, match=r"test_split=test needs .*/test/0\.png"):
    setting.open_split("test_split")
