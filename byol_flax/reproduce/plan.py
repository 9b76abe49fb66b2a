"""What the rows of an ablation mean as runs, before anything is run."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from byol_flax.reports.ablations import ABLATIONS
from byol_flax.runs.metrics_log import flatten
from byol_flax.runs.records import ADDED_SINCE
from byol_flax.runs.workdir import MAY_CHANGE
from input_pipeline.errors import UsageError

Load = Callable[[str, bool], Any]  # see `make`
# Settings that may change under a run, but for which data it learns from.
_FREE = tuple(name for name in MAY_CHANGE if name != "data.name.")


@dataclasses.dataclass(frozen=True)
class Run:
  """A training, or the state before one, that is measured for a row.

  Attributes:
    row: of the ablation.
    config: of pre-training, its seed included.
    trained: whether it is measured after its training.
  """

  row: str
  config: Any
  trained: bool

  @property
  def name(self) -> str:
    """Of its folder: a digest of its settings, and its seed.

    Runs of other rows and tables with the same settings have the same name.
    """
    return f"{digest_of(self.config)}-seed{self.config.seed}"


@dataclasses.dataclass(frozen=True)
class Plan:
  """An ablation at a scale.

  Attributes:
    table: key of `ABLATIONS`.
    scale: its name in configs/scales.py.
    baseline: the config that the rows change; its seed is the first one.
    rows: row -> its config; rows that are left out have none.
    left_out: row -> why the scale cannot do it.
    seeds: of each row.
    evaluation: config of the protocol that measures the runs.
    changed: settings that the command changed in all rows.
  """

  table: str
  scale: str
  baseline: Any
  rows: Mapping[str, Any]
  left_out: Mapping[str, str]
  seeds: Sequence[int]
  evaluation: Any
  changed: Mapping[str, Any]

  def runs(self) -> list[Run]:
    """All runs; each seed of all rows before the next seed."""
    return [
      Run(row, _with_seed(config, seed), self.is_trained(row))
      for seed in self.seeds
      for row, config in self.rows.items()
    ]

  def is_trained(self, row: str) -> bool:
    """Whether a row is measured after training."""
    return ABLATIONS[self.table].rows[row].trained

  def settings(self, row: str) -> dict[str, Any]:
    """What a row changes: key -> value."""
    return changes(self.baseline, self.rows[row])


def make(table: str, scale: str, seeds: int, load: Load) -> Plan:
  """Reads the configs of all rows.

  Args:
    table: its number in the paper, such as "5a".
    scale: its name.
    seeds: how many; the first one is the baseline's.
    load: (argument of configs/ablations.py, whether to change what the command
      changes) -> config.

  Raises:
    UsageError: there is no such table or scale; the command changes what the
      rows of the table differ in, or something impossible; or the scale can do
      no row.
  """
  if table not in ABLATIONS:
    raise UsageError(
      f"There is no ablation {table!r}; known are {', '.join(ABLATIONS)}, as "
      "the paper numbers its tables and figures (arXiv v3)."
    )
  shipped = load(f"scale={scale}", False)
  baseline = load(f"scale={scale}", True)
  _check_free(shipped, baseline)
  changed = changes(shipped, baseline)
  rows, left_out = {}, {}
  for row in ABLATIONS[table].rows:
    try:
      own = changes(shipped, load(f"{table}/{row},scale={scale}", False))
    except UsageError as error:
      left_out[row] = str(error)
      continue
    if both := sorted(own.keys() & changed.keys()):
      raise UsageError(
        f"--config.{both[0]} would be the same in all rows, but rows of table "
        f"{table} differ in it; leave it out."
      )
    rows[row] = load(f"{table}/{row},scale={scale}", True)
  if not rows:
    raise UsageError(
      f"The scale {scale} can do no row of table {table}: "
      f"{next(iter(left_out.values()))}"
    )
  return Plan(
    table=table,
    scale=scale,
    baseline=baseline,
    rows=rows,
    left_out=left_out,
    seeds=range(baseline.seed, baseline.seed + seeds),
    evaluation=load(f"scale={scale},evaluation=1", False),
    changed=changed,
  )


def _check_free(shipped: Any, baseline: Any) -> None:
  """Raises UsageError for a change that may be made under a run, but not here.

  Runs of other settings have other folders; these are no part of their names.
  """
  if baseline.watchdog.action not in ("off", "warn"):
    raise UsageError(
      f"--config.watchdog.action={baseline.watchdog.action} would end or "
      "change the rows that collapse, which is what they show; expected off or "
      "warn."
    )
  for key, others in (
    ("evaluation.crop_ratio", "measure runs otherwise than those"),
    ("gradient_dtype", "round gradients otherwise than those"),
  ):
    usual, asked = (
      flatten(config.to_dict())[key] for config in (shipped, baseline)
    )
    if asked != usual:
      raise UsageError(
        f"--config.{key} would {others} that are there; leave it out (it is "
        f"{usual} at this scale)."
      )


def changes(before: Any, after: Any) -> dict[str, Any]:
  """Key -> value in `after`, where two configs differ in what is learned.

  The seed does not count.
  """
  there, here = _settings(before), _settings(after)
  return {key: x for key, x in here.items() if there[key] != x}


def digest_of(config: Any) -> str:
  """Tells the settings of a config from others, its seed apart.

  A key that a later version adds does not count as long as its value does what
  the code without it did, so that runs of an older version are found again.
  """
  counted = {
    key: value
    for key, value in _settings(config).items()
    if key not in ADDED_SINCE or value != ADDED_SINCE[key]
  }
  text = json.dumps(counted, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def _settings(config: Any) -> dict[str, Any]:
  """What decides what a run learns: dotted key -> value, without the seed."""
  plain = json.loads(json.dumps(config.to_dict()))
  return {
    key: value
    for key, value in flatten(plain).items()
    if key != "seed" and not f"{key}.".startswith(_FREE)
  }


def _with_seed(config: Any, seed: int) -> Any:
  """A copy with another seed."""
  copy = config.copy_and_resolve_references()
  copy.seed = seed
  return copy
