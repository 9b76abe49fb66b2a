"""Programs that one process compiled are there for the next one."""

import os
import subprocess
import sys

import pytest

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


def start(folder, **environment):
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


def test_a_folder_that_cannot_be_made_is_no_obstacle(tmp_path):
  (tmp_path / "file").write_text("")
  assert start(str(tmp_path / "file" / "under")) == ["None", "False"]
