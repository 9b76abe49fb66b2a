"""What a run keeps of the way back that it took after a collapse.

`rolled_back` of a record holds the "step" of the checkpoint from which the run
went on, the update "from" which it came, the "reason", and the "change":
"learning_rate", which is halved, or "views", which come from another stream.
Until the first save after it a file of its own has this.
"""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from byol_flax.runs import run_files
from input_pipeline import retries, whole_files

LESS = 0.5  # of the learning rate


def keep(workdir: str, rolled_back: Mapping[str, Any]) -> None:
  """Writes the file."""
  text = json.dumps(rolled_back, indent=2) + "\n"
  whole_files.write_text(epath.Path(workdir, run_files.ROLLED_BACK), text)


def known(
  record: Mapping[str, Any] | None, workdir: str
) -> dict[str, Any] | None:
  """What is known of a way back before or at a checkpoint.

  Args:
    record: of that checkpoint, if there is one.
    workdir: of its run.
  """
  if record is None or record.get("rolled_back"):
    return (record or {}).get("rolled_back")
  file = epath.Path(workdir, run_files.ROLLED_BACK)

  def read() -> dict[str, Any] | None:
    return whole_files.read_object(file) if file.exists() else None

  kept = retries.patiently(read, str(file))
  if not kept or kept["step"] != record["data_position"]["next_update"]:
    return None
  return kept


def changes(
  config: Mapping[str, Any], rolled_back: Mapping[str, Any]
) -> dict[str, Any]:
  """The keys of a config, and their values, by which a run went on.

  Args:
    config: that it had begun with.
    rolled_back: see above.
  """
  if rolled_back["change"] == "learning_rate":
    return {"base_learning_rate": config["base_learning_rate"] * LESS}
  # The order of images takes one seed, and the draws the one after it.
  return {"seed": (config["seed"] + 2) % 2**32}


def config_of(
  config: dict[str, Any], rolled_back: Mapping[str, Any] | None
) -> dict[str, Any]:
  """The config by which a run went on that is `known` to have gone back.

  Without a way back it is `config`, with which the run had begun.
  """
  return {**config, **changes(config, rolled_back)} if rolled_back else config
