"""The splits of dense tasks: what is checked and told before a training."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from byol_flax.evaluation import dense, splits, unread
from byol_flax.evaluation.protocol import Setting, data_of
from input_pipeline import dense_sources, sources
from input_pipeline.dense_sources import DensePart
from input_pipeline.errors import UnreadableError, UsageError


def open_split(
  setting: Setting, key: str, open_: Callable[..., DensePart]
) -> DensePart:
  """The split that a key of the config names.

  Args:
    setting: of the evaluation.
    key: such as "train_split".
    open_: the task's function of `dense_sources`.
  """
  name, folder = data_of(setting.config, setting.encoder.config)
  began_with = unread.began_with(setting.workdir, key)
  split = open_(name, setting.config[key], folder, began_with=began_with)
  setting.claim(key, split)
  return split


def check_data(setting: Setting, train: DensePart, test: DensePart) -> None:
  """Tells what both splits hold and lack; raises UsageError if they overlap.

  Lists of one folder may name the same files, so files are compared.
  """
  for split in (train, test):
    setting.tell(sources.summary(split))
  setting.check_splits(train, test)
  shared = dense_sources.shared_files(train, test)
  if shared:
    raise UsageError(
      f"{train.split} and {test.split} of {train.name} share {len(shared):,} "
      f"images, such as {shared[0]}; expected lists that have none in common."
    )


def check_counted(
  split: sources.Source,
  counts: Callable[[Mapping[str, Any]], bool],
  what: str,
) -> None:
  """Raises UsageError if nothing of a split counts in its measure or loss.

  Args:
    split: whose examples are read until one counts, so mostly the first alone.
    counts: whether something of a decoded example counts.
    what: what it is, for the message.
  """
  for i in range(len(split)):
    try:
      example = sources.read_example(split, i)
    except UnreadableError:
      continue
    if counts(example):
      return
  raise UsageError(
    f"{split.split} of {split.name} has no {what} in its {len(split):,} "
    "image(s), so there is nothing to learn from or to measure; expected a "
    "split that has some."
  )


def check(setting: Setting, source: sources.Source) -> None:
  """Checks what a training needs before anything is compiled.

  Raises:
    UsageError: the batch cannot be divided or is larger than the data, or an
      encoder without averages of BatchNorm was to keep them.
  """
  config = setting.config
  splits.check_batch(config.batch_size, source, setting.mesh)
  if dense.norm_of(config) == "frozen" and not setting.encoder.has_averages:
    keys = [x for x in ("batch_norm", "encoder") if config.get(x) == "frozen"]
    raise UsageError(
      f"{'=frozen, '.join(keys)}=frozen: then BatchNorm keeps its averages, "
      "and an untrained encoder has none; expected a trained --encoder, or "
      "--config.batch_norm=synchronised and an encoder that is trained."
    )


def faults_of(source: Any) -> dict[str, Any]:
  """What a result says of the faults of the data: kind -> count and names."""
  faults: Mapping[str, Sequence[str]] = source.faults
  return {
    kind: {"count": len(names), "first": list(names[:3])}
    for kind, names in faults.items()
  }
