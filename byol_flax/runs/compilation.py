"""Compiled programs are kept on disk, so that only the first start compiles."""

import os
import pathlib
import sys

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
    The folder in use. None if it was not wanted, cannot be made, or is open to
    others, which standard error tells: training goes on without it.
  """
  # JAX has read this variable by itself, and those that bound the cache.
  if folder is None and (given := os.environ.get("JAX_COMPILATION_CACHE_DIR")):
    return given
  folder = folder or _folder_of_user()
  if folder == "none" or not _takes_programs(folder):
    jax.config.update("jax_compilation_cache_dir", None)
    return None
  if not folder.startswith("gs://"):
    jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)
  jax.config.update("jax_compilation_cache_dir", folder)
  # A checkpoint's digest consists of dozens of programs of 0.1 s each.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
  return folder


def _takes_programs(folder: str) -> bool:
  """Whether programs can be kept in a folder, which is made if absent."""
  if folder.startswith("gs://"):
    return True
  try:
    pathlib.Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    if whole_files.why_unwritable(folder):
      return False
    why = _why_unsafe(os.stat(folder))
  except OSError:
    return False
  if why:
    sys.stderr.write(
      "byol: compiled programs are executed at later starts, so nobody else "
      f"may write into their folder, but {folder} {why}. It is left out, and "
      "this start compiles all anew. Give --compilation-cache a folder of your "
      "own, or `none`; or empty this one and make it yours with mode 700.\n"
    )
  return not why


def _why_unsafe(status: os.stat_result) -> str:
  """Says how others may put programs into a folder; "" if they may not."""
  if status.st_mode & 0o022:
    return f"has mode {status.st_mode & 0o777:o}"
  # Whoever is root in a container has mounted folders with owners of the host.
  if os.geteuid() not in (0, status.st_uid):
    return f"belongs to the user with number {status.st_uid}"
  return ""


def _folder_of_user() -> str:
  caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return os.path.join(caches, "byol-flax", "compiled")
