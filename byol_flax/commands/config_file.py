"""Reads the config that `--config=FILE[:ARG]` and its overrides ask for."""

import contextlib
import os
import runpy
import sys
import traceback
import types
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from byol_flax import bounds
from byol_flax.bounds import DataSet, Path
from byol_flax.commands import config_bounds
from byol_flax.commands.command_line import CONFIG_HELP, SHIPPED_CONFIGS
from input_pipeline import paths
from input_pipeline.errors import UsageError

# ml_collections is slow to import, and `byol --help` can do without it.
if TYPE_CHECKING:
  from ml_collections import ConfigDict


def load_config(config_args: Sequence[str]) -> "ConfigDict":
  """Reads `--config=FILE[:ARG]` and applies `--config.key=value`.

  Raises:
    UsageError: there is no such file, it fails, its `get_config` refuses the
      argument with a ValueError, a key is unknown or a value is wrong.
  """
  from absl import flags
  from ml_collections.config_flags import config_flags

  given = [flag for flag in config_args if flag.startswith("--config=")]
  if len(given) != 1:
    raise UsageError(
      f"One --config=FILE[:ARG] or --suite is needed. {CONFIG_HELP}"
    )
  path, _, arg = given[0].removeprefix("--config=").partition(":")
  config = _run(_find(path), arg)
  overrides = ["byol", *(flag for flag in config_args if flag not in given)]
  values = flags.FlagValues()
  try:
    config_flags.DEFINE_config_dict(
      "config", config, flag_values=values, sys_argv=overrides
    )
    values(overrides)
  # Unknown keys and wrong types raise errors of various classes. Their texts
  # name the key, and the nearest one that exists.
  except (
    flags.Error,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
  ) as error:
    text = str(error).replace("\\n", " ").replace("\\", "").replace("'", "")
    parts = config_bounds.parts_of(config) if "suite" in config else ()
    only = f"; parts asked for: {', '.join(parts)}" if parts else ""
    raise UsageError(
      f"Unknown key or wrong value in {' '.join(overrides[1:])}: "
      f"{' '.join(text.split())}{only}"
    ) from None
  config_bounds.check(config)
  _make_paths_absolute(config)
  return config


def of_suite(given: str, encoder: str | None) -> str:
  """The flag --config=FILE[:ARG] that --suite=NAME[:ARG] stands for.

  Args:
    given: NAME[:ARG].
    encoder: of --encoder. For random weights the paper has grids of its own.

  Raises:
    UsageError: there is no such suite.
  """
  name, _, arg = given.partition(":")
  bounds.check("--suite", name, config_bounds.SUITES)
  if (encoder or "").startswith("random:"):
    arg = ",".join(filter(None, [arg, "random=1"]))
  return f"--config={os.path.join(SHIPPED_CONFIGS, name)}.py:{arg}"


def _find(given: str) -> str:
  """The file that is meant: the user's own, or else one of this project."""
  path = paths.absolute(given)
  if not os.path.isfile(path) and os.path.dirname(given) in ("", "configs"):
    path = os.path.join(SHIPPED_CONFIGS, os.path.basename(given))
  if not (path.endswith(".py") and os.path.isfile(path)):
    raise UsageError(
      f"There is no config file {given!r}; those of this project are in "
      f"{SHIPPED_CONFIGS}, such as configs/byol_digits.py, and are found from "
      "any folder."
    )
  return path


def _run(path: str, arg: str) -> "ConfigDict":
  """What the `get_config` of a file returns."""
  from ml_collections import ConfigDict

  try:
    with _our_configs():
      config = runpy.run_path(path)["get_config"](arg)
  except ValueError as error:
    raise UsageError(str(error)) from None
  # The lines are the user's, so any error may come.
  except Exception as error:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    where = f" in line {lines[-1]}" if lines else ""
    text = (
      f"{path} is no config file ({type(error).__name__}{where}: {error}); it "
      f"must have a function get_config, like those in {SHIPPED_CONFIGS}."
    )
    if isinstance(error, ImportError) and _is_configs(error.name or ""):
      text += (
        " In a config file `configs` is the package of this project, so a "
        "package of your own needs another name."
      )
    raise UsageError(text) from None
  if not isinstance(config, ConfigDict):
    raise UsageError(
      f"get_config of {path} returned {type(config).__name__}; expected a "
      "ConfigDict, such as byol.get_config() makes."
    )
  return config


@contextlib.contextmanager
def _our_configs() -> Iterator[None]:
  """Within the block, `configs` is the package of this project.

  Another package of that name may come first on sys.path, or may have been
  imported. Afterwards `configs` is what it was before.
  """
  before = {name: sys.modules.pop(name) for name in _imported_configs()}
  package = types.ModuleType("configs")
  package.__path__ = [SHIPPED_CONFIGS]
  sys.modules["configs"] = package
  try:
    yield
  finally:
    for name in _imported_configs():
      del sys.modules[name]
    sys.modules.update(before)


def _imported_configs() -> list[str]:
  return [name for name in sys.modules if _is_configs(name)]


def _is_configs(module: str) -> bool:
  return module.partition(".")[0] == "configs"


def _make_paths_absolute(config: "ConfigDict") -> None:
  """Makes paths absolute, so that a run is the same from every folder.

  `~` then stays the home of the user who began the run.
  """
  rows = config_bounds.rows_of(config)
  for key in config_bounds.leaves(config.to_dict()):
    bound, value = rows.get(key), config_bounds.value_of(config, key)
    if value and isinstance(bound, Path):
      config.update_from_flattened_dict({key: paths.absolute(value)})
    elif value and isinstance(bound, DataSet):
      config.update_from_flattened_dict({key: paths.of_data_set(value)})
