"""Platforms that are not there: a sentence, before anything else."""

import os
import subprocess
import sys

import pytest

from byol_flax.runs import devices
from tests.trainers import ROOT

NOTHING = devices.Machine(gpu=False, tpu=False, cuda=False, libtpu=False)
ALL = devices.Machine(gpu=True, tpu=True, cuda=True, libtpu=True)
GPU = devices.Machine(gpu=True, tpu=False, cuda=False, libtpu=True)
TPU = devices.Machine(gpu=False, tpu=True, cuda=True, libtpu=False)


@pytest.mark.parametrize(
  ("asked", "machine", "words"),
  [
    ("gpu", NOTHING, "pip install 'byol-flax[cuda]'"),
    ("cuda,cpu", GPU, "pip install 'byol-flax[cuda]'"),
    ("tpu", NOTHING, "pip install 'byol-flax[tpu]'"),
    ("bogus", ALL, "no platform 'bogus'; known are cpu, cuda and tpu"),
    ("cuda", ALL, "found no such device"),
    ("tpu", ALL, "found no such device"),
  ],
)
def test_what_was_asked_for_and_is_not_there(asked, machine, words):
  text = devices.unusable(asked, "", machine)
  assert text.startswith(f"JAX_PLATFORMS is {asked!r}")
  assert words in text


def test_jaxs_own_words_are_told_without_its_advice():
  reason = "Backend 'tpu': lockfile. (set JAX_PLATFORMS='' to choose)\nmore"
  assert "that: Backend 'tpu': lockfile. Without" in devices.unusable(
    "tpu", reason, ALL
  )


def test_devices_that_nobody_renounced():
  assert "byol-flax[cuda]" in devices.missing_package("", GPU)
  assert "byol-flax[tpu]" in devices.missing_package("", TPU)
  for asked, machine in (("cpu", GPU), ("cpu", TPU), ("", ALL), ("", NOTHING)):
    assert devices.missing_package(asked, machine) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
  ("platform", "words"),
  [
    ("gpu", ["train", "--workdir={folder}/run"]),
    ("cuda", ["benchmark", "step", "--out={folder}/a.json"]),
    ("bogus", ["evaluate", "--workdir={folder}/run"]),
  ],
)
def test_every_command_that_needs_devices(platform, words, tmp_path):
  kind = "evaluate" if "evaluate" in words else "byol_digits"
  result = subprocess.run(
    [
      *(sys.executable, "-m", "byol_flax.main"),
      *(word.format(folder=tmp_path) for word in words),
      f"--config=configs/{kind}.py",
    ],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": platform, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert result.returncode == 2, result.stderr
  (line,) = result.stderr.splitlines()
  assert line.startswith(f"byol: JAX_PLATFORMS is {platform!r}")
  assert not list(tmp_path.iterdir())
