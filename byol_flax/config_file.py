"""Config files: from `--config=FILE[:ARG]` and its overrides to a config."""

import os
import runpy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from byol_flax import config_bounds
from byol_flax.bounds import DataSet, Path
from byol_flax.command_line import CONFIG_HELP
from input_pipeline import paths
from input_pipeline.errors import UsageError

# ml_collections takes time to import: `byol --help` does without it.
if TYPE_CHECKING:
  from ml_collections import ConfigDict


def load_config(config_args: Sequence[str]) -> "ConfigDict":
  """Reads `--config=FILE[:ARG]` and applies `--config.key=value`.

  Raises:
    UsageError: no such file, an argument that its `get_config` refuses with a
      ValueError, an unknown key, or a value that cannot be.
  """
  from absl import flags
  from ml_collections.config_flags import config_flags

  given = [flag for flag in config_args if flag.startswith("--config=")]
  if len(given) != 1:
    raise UsageError(f"One --config=FILE[:ARG] is needed. {CONFIG_HELP}")
  path, _, arg = given[0].removeprefix("--config=").partition(":")
  path = paths.absolute(path)
  if not (path.endswith(".py") and os.path.isfile(path)):
    raise UsageError(
      f"There is no config file {path!r}; those of this project are in "
      "configs/, such as configs/byol_digits.py."
    )
  try:
    config = runpy.run_path(path)["get_config"](arg)
  except ValueError as error:
    raise UsageError(str(error)) from None
  except (SyntaxError, ImportError, KeyError) as error:
    raise UsageError(
      f"{path} is no config file ({type(error).__name__}: {error}); it must "
      "have a function get_config, as those in configs/ do."
    ) from None

  overrides = ["byol", *(flag for flag in config_args if flag not in given)]
  values = flags.FlagValues()
  try:
    config_flags.DEFINE_config_dict(
      "config", config, flag_values=values, sys_argv=overrides
    )
    values(overrides)
  # Unknown keys and wrong types come as various classes, all from the
  # user's flags; their texts name the key, and the nearest one that exists.
  except (
    flags.Error,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
  ) as error:
    text = str(error).replace("\\n", " ").replace("\\", "").replace("'", "")
    raise UsageError(
      f"Unknown key or wrong value in {' '.join(overrides[1:])}: "
      f"{' '.join(text.split())}"
    ) from None
  config_bounds.check(config)
  _make_paths_absolute(config)
  return config


def _make_paths_absolute(config: "ConfigDict") -> None:
  """So that a run is the same from everywhere, and `~` is whose it was."""
  rows = config_bounds.rows_of(config)
  for key in config_bounds.leaves(config.to_dict()):
    bound, value = rows.get(key), config_bounds.value_of(config, key)
    if value and isinstance(bound, Path):
      config.update_from_flattened_dict({key: paths.absolute(value)})
    elif value and isinstance(bound, DataSet):
      config.update_from_flattened_dict({key: paths.of_data_set(value)})


def config_of_run(record: dict[str, Any]) -> "ConfigDict":
  """The config saved with a run; JSON made lists of its tuples."""
  from ml_collections import ConfigDict

  from byol_flax import records

  def tuples(value: Any) -> Any:
    if isinstance(value, dict):
      return {name: tuples(inner) for name, inner in value.items()}
    return tuple(value) if isinstance(value, list) else value

  config = ConfigDict(tuples(records.completed(record)["config"]))
  _make_paths_absolute(config)
  return config
