"""What a wheel installs works from any folder, whatever lies there."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.runs.test_older_records import unpack
from tests.trainers import ROOT

PACKAGES = ("byol_flax", "configs", "input_pipeline")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """A folder with what the wheel of this repository holds."""
  folder = tmp_path_factory.mktemp("wheel")
  ignored = shutil.ignore_patterns("__pycache__")
  for name in PACKAGES:
    shutil.copytree(ROOT / name, folder / "source" / name, ignore=ignored)
  for name in ("pyproject.toml", "README.md"):
    shutil.copy(ROOT / name, folder / "source")
  subprocess.run(
    [
      *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
      *("--no-index", "--no-build-isolation", "--disable-pip-version-check"),
      *("--wheel-dir", folder, folder / "source"),
    ],
    check=True,
    capture_output=True,
  )
  (wheel,) = folder.glob("byol_flax-*.whl")
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(folder / "site-packages")
  return folder / "site-packages"


def byol(installed, folder, *words):
  return subprocess.run(
    [sys.executable, "-m", "byol_flax.main", *words],
    cwd=folder,
    # The current folder comes first, then this one.
    env={**os.environ, "PYTHONPATH": str(installed)},
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.slow
def test_an_installed_wheel_beside_a_package_called_configs(
  installed, tmp_path
):
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "__init__.py").write_text("raise RuntimeError")
  (tmp_path / "mine.py").write_text(
    "from configs import byol, byol_digits\n"
    "def get_config(arg):\n"
    "  config = byol_digits.get_config()\n"
    "  config.seed = -len(byol.PRESETS)\n"
    "  return config\n"
  )
  # Each is refused for what comes after the file was found and run.
  for flags, words in (
    (["--config=mine.py"], "byol: seed is -5; expected"),
    (
      ["--config=byol_digits.py", "--config.epochs=nan"],
      "byol: epochs is nan;",
    ),
    (
      ["--config=configs/byol_digits.py", "--config.seed=-1"],
      "byol: seed is -1; expected",
    ),
    (["--config=byol_digit.py"], f"are in {installed}/configs, such as"),
  ):
    done = byol(installed, tmp_path, "views", *flags)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr


THREE_LINES = """
import sys
sys.modules["tensorflow"] = None  # as on a machine that lacks it
import byol_flax, numpy as np
encoder = byol_flax.load_encoder("digits")
print(encoder(np.zeros((2, 9, 9, 3), np.uint8)).shape, byol_flax.__file__)
"""


@pytest.mark.slow
def test_features_by_an_installed_wheel_without_tensorflow(installed, tmp_path):
  unpack("format1_digits.tar.xz", tmp_path)
  done = subprocess.run(
    [sys.executable, "-c", THREE_LINES],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": str(installed)},
    capture_output=True,
    text=True,
    check=False,
  )
  expected = f"(2, 16) {installed}/byol_flax/__init__.py\n"
  assert (done.stdout, done.stderr) == (expected, "")
  for package in ("byol_flax", "input_pipeline"):
    assert (installed / package / "py.typed").exists()
