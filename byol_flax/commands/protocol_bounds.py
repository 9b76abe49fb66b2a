"""What each value of an evaluation's config may be, by its protocol.

The meaning of a key is written beside it in the config of its protocol.
"""

from collections.abc import Mapping

from byol_flax.bounds import (
  Bound,
  DataSet,
  Interval,
  OneOf,
  Path,
  Real,
  Several,
  Switch,
  Text,
  Whole,
)

SHARE = Real(0, 1)  # probabilities too
POSITIVE = Real(0, above=True)
SEED = Whole(0, 2**32 - 1)  # JAX would reduce any other to one of these

WORKERS = Whole(-1, 10_000, ", -1 for one per core")
THREADS = Whole(0, 10_000, ", 0 to go by the storage")


def rows_in(section: str, rows: Mapping[str, Bound]) -> dict[str, Bound]:
  """The rows of a section of a config."""
  return {f"{section}.{name}": bound for name, bound in rows.items()}


CHECKPOINT: dict[str, Bound] = {
  "checkpoint.every_steps": Whole(0),
  "checkpoint.every_minutes": POSITIVE,
  # One remains when the newest is damaged.
  "checkpoint.keep_last": Whole(2),
  "checkpoint.keep_every": Whole(0),
  "checkpoint.save_on_interrupt": Switch(),
}
# JAX takes whole seconds.
DEADLINES: dict[str, Bound] = {
  "deadlines.start_seconds": Real(1),
  "deadlines.silence_seconds": Real(1),
  "deadlines.stall_seconds": Real(1),
}

# For `common.protocol` in configs/.
_EVALUATION: dict[str, Bound] = {
  "data_name": DataSet(optional=True),
  "data_dir": Path(optional=True),
  "num_workers": WORKERS,
  "num_threads": THREADS,
  "max_unreadable_share": SHARE,
  **DEADLINES,
}
_LOOPED: dict[str, Bound] = {
  **_EVALUATION,
  "report_every_steps": Whole(1),
  **CHECKPOINT,
}
# For `common.trained_protocol`.
_TRAINED: dict[str, Bound] = {**_LOOPED, "seed": SEED}

# For `sets.add_splits`.
_THREE_SPLITS: dict[str, Bound] = {
  "train_split": Text(),
  "valid_split": Text(optional=True),
  "test_split": Text(),
  "valid_per_class": Whole(-1),
  "train_size": Whole(0),
  "valid_size": Whole(0),
  "test_size": Whole(0),
  "layout": Text(optional=True),
  "metric": OneOf("top1", "mean_per_class", "map11"),
}

# For configs/few_label.py.
_FEW_LABEL: dict[str, Bound] = {
  **_EVALUATION,
  "representations": Several(OneOf("raw_pixels", "random_encoder", "byol")),
  "train_split": Text(),
  "test_split": Text(),
  "batch_size": Whole(1),
  "few_label.per_class": Several(Whole(1)),
  "few_label.draws": Whole(1),
  "few_label.inverse_penalty": POSITIVE,
  "few_label.seed": SEED,
  "neighbours": Whole(1),
}

# For configs/knn.py.
_KNN: dict[str, Bound] = {
  **_EVALUATION,
  "train_split": Text(),
  "test_split": Text(),
  "batch_size": Whole(1),
  "neighbours": Several(Whole(1)),
  "temperature": POSITIVE,
}

# For configs/linear.py.
_LINEAR: dict[str, Bound] = {
  **_TRAINED,
  "train_split": Text(),
  "valid_split": Text(optional=True),
  "test_split": Text(),
  "epochs": POSITIVE,
  "batch_size": Whole(1),
  "learning_rates": Several(Real(0, 1e30, above=True)),
  "momentum": Real(0, 1, below=True),
  "augmentations": Several(OneOf("crop_flip", "pretraining")),
  "logit_regularisation": Several(Switch()),
  "logit_clip": POSITIVE,
  "logit_penalty": Real(0),
  "evaluate_every_steps": Whole(0),
}

# For configs/semi_supervised.py.
_SEMI_SUPERVISED: dict[str, Bound] = {
  **_TRAINED,
  "train_split": Text(),
  "valid_split": Text(),
  "test_split": Text(),
  "shares": Several(Real(0, 1, above=True)),
  "subset_seed": SEED,
  "subset_file": Path(optional=True),
  "subset_data": DataSet(optional=True),
  "batch_size": Whole(1),
  "epochs": Several(POSITIVE),
  "learning_rates": Several(Real(0, 1e30, above=True)),
  "momentum": Real(0, 1, below=True),
  "weight_decay": Real(0),
}

# Of configs/finetune.py.
_FINETUNE: dict[str, Bound] = {
  **_TRAINED,
  **_THREE_SPLITS,
  "batch_size": Whole(1),
  "steps": Whole(1),
  "learning_rates": Several(Real(0, 1e30, above=True)),
  "weight_decays": Several(Real(0)),
  "momentum": Real(0, 1, below=True),
  "budget": Whole(0),
}

# Of configs/supervised.py.
_SUPERVISED: dict[str, Bound] = {
  **_TRAINED,
  "train_split": Text(),
  "test_split": Text(),
  "epochs": POSITIVE,
  "warmup_epochs": Real(0),
  "batch_size": Whole(1),
  "base_learning_rate": Real(0, 1e30, above=True),
  "momentum": Real(0, 1, below=True),
  "weight_decay": Real(0),
  "label_smoothing": Real(0, 1, below=True),
  "rand_augment.layers": Whole(0, 100),
  "rand_augment.magnitude": Real(0, 10),
}

# For configs/transfer.py.
_TRANSFER: dict[str, Bound] = {
  **_EVALUATION,
  **_THREE_SPLITS,
  "seed": SEED,
  "crop_ratio": Real(0, 1, above=True),
  "batch_size": Whole(1),
  "penalties.least": POSITIVE,
  "penalties.most": POSITIVE,
  "penalties.count": Whole(1),
}

# For `common.dense_protocol`.
_DENSE: dict[str, Bound] = {
  **_LOOPED,
  "train_split": Text(),
  "test_split": Text(),
  "batch_norm": OneOf("synchronised", "per_device", "frozen"),
  "batch_size": Whole(1),
  "steps": Whole(1),
  "warmup_steps": Whole(0),
  "warmup_factor": SHARE,
  "drops": Several(SHARE),
  "momentum": Real(0, 1, below=True),
  "weight_decay": Real(0),
  "seeds": Several(SEED, distinct=True),
  "flip_probability": SHARE,
  "evaluation_batch_size": Whole(1),
  "pictures": Whole(0, 1000),
}

# For configs/segmentation.py.
_SEGMENTATION: dict[str, Bound] = {
  **_DENSE,
  "classes_file": Path(optional=True),
  "held_out": Whole(0),
  "seed": SEED,
  "evaluate_every_steps": Whole(0),
  "learning_rates": Several(Real(0, 1e30, above=True)),
  "scales": Interval(Real(0.01, 100)),
  "crop_size": Whole(1, 65_535),
  "output_stride": OneOf(16, 32),
  "inference": OneOf("centre_crop", "whole"),
}

# For configs/detection.py.
_DETECTION: dict[str, Bound] = {
  **_DENSE,
  "classes_file": Path(optional=True),
  "encoder": OneOf("fine_tuned", "frozen"),
  "learning_rate": Real(0, 1e30, above=True),
  "short_edges": Several(Whole(1, 65_535)),
  "longest_edge": Whole(1, 65_535),
  "test_edge": Whole(1, 65_535),
  "buckets": Whole(1, 100),
  "max_boxes": Whole(1, 10_000),
  "anchors.sizes": Several(POSITIVE),
  "anchors.ratios": Several(POSITIVE),
  "rpn.batch": Whole(1),
  "rpn.positive_share": SHARE,
  "rpn.positive_iou": SHARE,
  "rpn.negative_iou": SHARE,
  "rpn.nms_iou": SHARE,
  **rows_in(
    "rpn",
    {
      f"{when}_{what}": Whole(1)
      for when in ("train", "test")
      for what in ("before", "after")
    },
  ),
  "roi.batch": Whole(1),
  "roi.positive_share": SHARE,
  "roi.iou": SHARE,
  "roi.pool_size": Whole(1, 1000),
  "roi.sampling_ratio": Whole(1, 100),
  "test.score": SHARE,
  "test.nms_iou": SHARE,
  "test.detections": Whole(1),
}

# For configs/depth.py.
_DEPTH: dict[str, Bound] = {
  **_DENSE,
  "learning_rate": Real(0, 1e30, above=True),
  "evaluate_every_steps": Whole(0),
  "huber_share": Real(0, 1, above=True),
  "grayscale_probability": SHARE,
  "brightness": SHARE,
  "saturation": Interval(Real(0, 100)),
  "hue": Real(0, 0.5),
  "convention": OneOf("fcrn", "cropped"),
}

# By the name of the protocol.
PROTOCOLS: dict[str, dict[str, Bound]] = {
  "few_label": _FEW_LABEL,
  "knn": _KNN,
  "linear": _LINEAR,
  "finetune": _FINETUNE,
  "semi_supervised": _SEMI_SUPERVISED,
  "supervised": _SUPERVISED,
  "transfer": _TRANSFER,
  "segmentation": _SEGMENTATION,
  "detection": _DETECTION,
  "depth": _DEPTH,
}
