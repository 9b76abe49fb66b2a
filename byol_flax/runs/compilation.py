"""Compiled programs are kept on disk, so that only the first start compiles."""

import os
import pathlib

import jax

from input_pipeline import whole_files

# Above this size the programs that were used least recently are removed.
_MOST_BYTES = 4 * 2**30


def keep_programs(folder: str | None) -> str | None:
  """Turns JAX's persistent compilation cache on; call before compiling.

  Args:
    folder: where to keep programs. None means the folder that
      JAX_COMPILATION_CACHE_DIR names, else a folder of the user,
      $XDG_CACHE_HOME/byol-flax/compiled; "none" keeps nothing.

  Returns:
    The folder in use. None if it was not wanted or cannot be made: training
    goes on without it.
  """
  if folder == "none":
    jax.config.update("jax_compilation_cache_dir", None)
    return None
  # JAX has read this variable by itself, and those that bound the cache.
  if folder is None and (given := os.environ.get("JAX_COMPILATION_CACHE_DIR")):
    return given
  folder = folder or _folder_of_user()
  if not folder.startswith("gs://"):
    try:
      # The programs will be executed, so nobody else may put any there.
      pathlib.Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
      if whole_files.why_unwritable(folder):
        return None
    except OSError:
      return None
    jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)
  jax.config.update("jax_compilation_cache_dir", folder)
  # A checkpoint's digest consists of dozens of programs of 0.1 s each.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
  return folder


def _folder_of_user() -> str:
  caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return os.path.join(caches, "byol-flax", "compiled")
