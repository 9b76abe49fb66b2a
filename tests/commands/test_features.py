"""`byol features`: by two processes, and what it refuses."""

import numpy as np
import pytest

import byol_flax
from input_pipeline import sources
from tests import forks, trainers
from tests.runs.test_older_records import unpack


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("features")
  unpack("format1_digits.tar.xz", folder)
  return folder


FLAGS = ("--encoder=digits", "--data=digits", "--split=test")


def features(folder, *flags):
  return forks.byol("features", *flags, cwd=folder)


@pytest.mark.slow
def test_two_processes_find_what_the_api_finds(folder):
  trainers.Trainers(
    folder / "two.npz",
    (f"--encoder={folder}/digits", *FLAGS[1:], "--batch-size=50"),
    processes=2,
    devices=2,
    command="features",
    into="out",
  ).finish()
  with np.load(folder / "two.npz", allow_pickle=False) as found:
    ids, labels, representations = (
      found[name] for name in ("id", "label", "representation")
    )
  encoder = byol_flax.load_encoder(folder / "digits")
  examples = list(sources.open_source("digits", "test"))
  images = encoder.preprocess([example["image"] for example in examples])
  np.testing.assert_allclose(
    representations, encoder(images), rtol=1e-5, atol=1e-5
  )
  assert labels.tolist() == [example["label"] for example in examples]
  assert ids.tolist() == [f"test/{i}" for i in range(360)]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("flags", "told"),
  [
    ((*FLAGS, "--out=a.csv"), "a.csv should end in one of .parquet, .npz"),
    ((*FLAGS[1:], "--out=a.npz"), "needs --encoder=ENCODER"),
    ((*FLAGS, "--out=a.npz", "--batch-size=0"), "--batch-size is 0"),
    ((*FLAGS, "--out=a.npz", "--split=trian"), "digits has no split 'trian'"),
    (("--encoder=x", *FLAGS[1:], "--out=a.npz"), "there is no checkpoint in"),
    ((*FLAGS, "--out=a.npz", "--config=x"), "unknown argument --config=x; see"),
  ],
)
def test_mistakes_are_told(folder, flags, told):
  done = features(folder, *flags)
  assert done.returncode == 2
  assert told in done.stderr
  assert "Traceback" not in done.stderr
  assert not list(folder.glob("a.*"))
