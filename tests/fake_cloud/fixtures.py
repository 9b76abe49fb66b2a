"""Fixtures of the tests of launch/; a module apart, for pytest_plugins."""

import shutil

import pytest

from tests.fake_cloud.rig import ROOT, Rig, git


def clone(folder):
  """Makes a repository in `folder` of what the launcher ships, one commit."""
  ignored = shutil.ignore_patterns("__pycache__")
  for name in ("launch", "configs"):
    shutil.copytree(ROOT / name, folder / name, ignore=ignored)
  for name in (".gitignore", "pyproject.toml", "constraints.txt"):
    shutil.copy(ROOT / name, folder)
  git(folder, "init", "--quiet")
  git(folder, "add", ".")
  git(folder, "commit", "--quiet", "--message=all")
  return folder


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
  return clone(tmp_path_factory.mktemp("clone") / "byol")


@pytest.fixture
def rig(repository, tmp_path):
  rig = Rig(repository, tmp_path)
  yield rig
  rig.close()
