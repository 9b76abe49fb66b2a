r"""Every row of the paper's ablations, as a change of one setting or a few.

Command: byol train --config=configs/ablations.py:TABLE/ROW[,scale=NAME] \
  --workdir=DIR, or byol reproduce TABLE for all rows of a table
Arguments after the colon, with commas between: a row of
configs/ablation_rows.py, such as 5a/0.9, 5b/target_1 or 16/byol_256 (without
one, the baseline); scale=imagenet (default), cifar10 or digits, see
configs/scales.py; evaluation=1 for the protocol that measures the runs.
Hardware: 64 TPU v3 cores, 300 epochs of ImageNet for each row (§5).
Paper: byol_flax/reports/ablations.py. Measured: see BUILD_NOTES.md.
"""

from ml_collections import ConfigDict

from configs import common, scales
from configs.ablation_rows import ROWS, Changes


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` is explained at the top of this file."""
  first, _, rest = (arg or "").partition(",")
  row, options = ("", arg) if "=" in first else (first, rest)
  given = common.parse_arg(options, scale="imagenet", evaluation=0)
  scale = scales.find(given["scale"])
  if given["evaluation"]:
    return scale.evaluation()
  config = scale.baseline()
  changes = scales.translated(given["scale"], _changes(row) if row else {})
  config.update_from_flattened_dict(changes)
  return config


def _changes(row: str) -> Changes:
  """What the row changes that "5a/0.9" names."""
  table, _, name = row.partition("/")
  if table not in ROWS:
    raise ValueError(
      f"There is no ablation {row!r}; write TABLE/ROW, where TABLE is one of "
      f"{', '.join(ROWS)}, such as 5a/0.9."
    )
  rows = ROWS[table]
  if name not in rows:
    raise ValueError(
      f"Table {table} has no row {name!r}; it has {', '.join(rows)}."
      f"{common.near_miss(row, [f'{table}/{known}' for known in rows])}"
    )
  return rows[name]
