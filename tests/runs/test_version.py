"""Which code is running: a commit, a release, or what was shipped."""

import importlib.metadata
import shutil
import subprocess
import sys

import pytest

from byol_flax.runs import version


@pytest.fixture
def tree(tmp_path):
  """A package below somebody's repository, which has a commit."""
  project = tmp_path / "project"
  site = project / "site-packages"
  (site / "byol_flax" / "runs").mkdir(parents=True)
  shutil.copy(version.__file__, site / "byol_flax" / "runs" / "version.py")
  git = ["git", "-c", "user.name=x", "-c", "user.email=x@y.z"]
  for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
    subprocess.run([*git, *command], cwd=project, check=True)
  return project, site


def told(site):
  code = "import runpy; print(runpy.run_path('version.py')['code_version']())"
  return subprocess.run(
    [sys.executable, "-c", code],
    cwd=site / "byol_flax" / "runs",
    capture_output=True,
    text=True,
    check=True,
  ).stdout.strip()


def test_a_package_in_the_tree_of_another_project_tells_its_release(tree):
  _, site = tree
  release = importlib.metadata.version("byol-flax")
  assert told(site) == f"release {release}"
  (site / "COMMIT").write_text("c0de\n")
  assert told(site) == "c0de"


def test_a_clone_tells_its_commit(tree):
  project, site = tree
  shutil.move(site / "byol_flax", project / "byol_flax")
  commit = subprocess.run(
    ["git", "rev-parse", "HEAD"],
    cwd=project,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.strip()
  assert told(project).removesuffix("-dirty") == commit
