"""The paper's evaluations of an encoder, one after another.

Command: byol evaluate --suite=paper[:PART,...] --encoder=RUN --workdir=DIR
  [--config.data_dir=TFDS_DIR] [--config.PART.key=value]
Arguments after the colon: parts, or beginnings of their names such as transfer;
without any, all. `random=1` takes the steps and grids by which random weights
are fine-tuned; --suite adds it for --encoder=random:CONFIG. Each part is the
evaluation by configs/PROTOCOL.py, in the folder DIR/PART. Fine-tuning is by far
the largest: 12 sets × 57 trainings of 20,000 updates;
`--config.finetune_pets.budget=N` makes one smaller. Training with labels from
the start is only done for --encoder=random:CONFIG. Boxes and masks are read
from folders, `--config.PART.data_name=voc:DIR` with the parts detection and
segmentation, and depth from --config.depth.data_name=nyu:DIR.
Paper: Tables 1, 2, 3, 4, 7, 8, 9 and 13. Measured: see BUILD_NOTES.md.
"""

from ml_collections import ConfigDict, config_dict

from configs import (
  common,
  depth,
  detection,
  finetune,
  knn,
  linear,
  segmentation,
  semi_supervised,
  sets,
  supervised,
  transfer,
)


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` is explained at the top of this file."""
  words = [word for word in (arg or "").split(",") if word]
  flags = ",".join(word for word in words if "=" in word)
  given = common.parse_arg(flags, random=0)
  parts = _parts(given["random"])
  chosen = _chosen(list(parts), [word for word in words if "=" not in word])
  config = ConfigDict()
  config.suite = "paper"
  # For all parts that have none of their own; see configs/byol.py.
  config.data_dir = config_dict.placeholder(str)
  config.deadlines = common.protocol("").deadlines
  for name in parts:
    if name in chosen:
      config[name] = parts[name]
      del config[name].deadlines  # the command has one set of them
  return config


def _parts(random: int) -> dict[str, ConfigDict]:
  """All parts by name; `random` is that of configs/finetune.py."""
  parts = {"knn": knn.get_config()}  # not in the paper
  for name in sets.SETS:  # Tables 3 and 13
    parts[f"transfer_{name}"] = transfer.get_config(name)
  parts["linear"] = linear.get_config("table7=1")  # Tables 1, 7 and 9
  parts["linear_released"] = linear.get_config("released=1")
  # Table 13. The one that the encoder was trained on is left to `linear`.
  for name, data_set in (
    ("imagenet", "imagenet2012"),
    ("places365", "places365_small"),
  ):
    config = linear.get_config()
    config.data_name = data_set
    parts[f"linear_{name}"] = config
  # A part for each share, so that each can have its own `subset_file`.
  for percent in (1, 10, 100):  # Tables 2 and 8
    parts[f"semi_supervised_{percent}"] = semi_supervised.get_config(
      f"share={percent / 100}"
    )
  for name in sets.SETS:  # Table 3
    parts[f"finetune_{name}"] = finetune.get_config(f"{name},random={random}")
  for protocol in (detection, segmentation, depth):  # Table 4
    config = protocol.get_config()
    parts[config.protocol] = config
  parts["supervised"] = supervised.get_config()  # Table 9
  return parts


def _chosen(names: list[str], wanted: list[str]) -> set[str]:
  """The parts that words such as "knn" and "transfer" mean."""
  chosen: set[str] = set()
  for word in wanted:
    found = [x for x in names if x == word] or [
      x for x in names if x.startswith(f"{word}_")
    ]
    if not found:
      raise ValueError(
        f"The suite has no part {word!r}; it has {', '.join(names)}."
        f"{common.near_miss(word, names)}"
      )
    chosen.update(found)
  return chosen or set(names)
