"""Programs that one process compiled are there for the next one."""

import os
import subprocess
import sys

import jax
import pytest

from byol_flax.runs import compilation
from tests import trainers

PROGRAM = """
import sys
from byol_flax.runs import compilation
print(compilation.keep_programs(sys.argv[1] or None))
import jax, jax.numpy as jnp
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
hits = []
jax.monitoring.register_event_listener(
  lambda name, **_: hits.append(name.rsplit("/", 1)[-1])
)
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8)))
print("cache_hits" in hits)
"""


def start(folder, told=None, **environment):
  kept = {
    name: value
    for name, value in os.environ.items()
    if name not in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")
  }
  found = subprocess.run(
    [sys.executable, "-c", PROGRAM, folder],
    cwd=trainers.ROOT,
    env={**kept, **environment},
    capture_output=True,
    text=True,
    check=True,
  )
  if told is not None:
    told.append(found.stderr)
  return found.stdout.split()


@pytest.mark.slow
def test_programs_are_kept_where_the_user_says(tmp_path):
  given = str(tmp_path / "given")
  assert start(given) == [given, "False"]
  assert start(given) == [given, "True"]
  home = f"{tmp_path}/caches/byol-flax/compiled"
  assert start("", XDG_CACHE_HOME=f"{tmp_path}/caches") == [home, "False"]
  assert os.stat(home).st_mode & 0o077 == 0
  assert start("none", JAX_COMPILATION_CACHE_DIR=given) == ["None", "False"]


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_no_obstacle(tmp_path):
  (tmp_path / "file").write_text("")
  assert start(str(tmp_path / "file" / "under")) == ["None", "False"]


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o702, 0o1777])
def test_a_folder_that_others_write_into_is_left_out(tmp_path, capsys, mode):
  folder = tmp_path / "shared"
  folder.mkdir()
  folder.chmod(mode)
  assert compilation.keep_programs(str(folder)) is None
  assert jax.config.jax_compilation_cache_dir is None
  assert f"{folder} has mode {mode & 0o777:o}" in capsys.readouterr().err


def test_a_folder_of_another_user_is_left_out(tmp_path, capsys, monkeypatch):
  tmp_path.chmod(0o755)
  owner = os.stat(tmp_path).st_uid
  monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
  assert compilation.keep_programs(str(tmp_path)) is None
  told = capsys.readouterr().err
  assert f"{tmp_path} belongs to the user with number {owner}." in told


@pytest.mark.slow
def test_folders_that_nobody_else_writes_into_are_taken(tmp_path):
  told = []
  mounted = tmp_path / "mounted"
  mounted.mkdir()
  mounted.chmod(0o755)
  if os.geteuid() == 0:  # as in a container
    os.chown(mounted, 12345, 12345)
  assert start(str(mounted), told)[0] == str(mounted)
  new = f"{tmp_path}/new/one"
  before = os.umask(0o002)
  try:
    assert start(new, told)[0] == start(new, told)[0] == new
  finally:
    os.umask(before)
  # Whoever sets the variable has chosen, as a slice's launcher does.
  shared = tmp_path / "shared"
  shared.mkdir()
  shared.chmod(0o777)
  kept = start("", told, JAX_COMPILATION_CACHE_DIR=str(shared))
  assert kept[0] == str(shared)
  assert not [text for text in told if "byol: " in text]
