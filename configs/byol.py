"""BYOL on ImageNet: the base run, from which the others are made.

Command: byol train --config=configs/byol.py:epochs=1000 --workdir=DIR
Arguments after the colon: architecture, width, epochs (40, 100, 300, 1000),
batch_size (4096, or 512 with epochs=1000).
Hardware, time: 512 TPU v3 cores, about 8 hours for ResNet-50 (paper §3.3).
Paper: 74.3 % top-1, linear evaluation of ResNet-50. Measured: not yet run.
"""

from ml_collections import ConfigDict, config_dict

from configs import common

# (epochs, batch size): base learning rate, weight decay, base target decay.
# Authors' configs/byol.py; the 300-epoch row also paper §5, the 1000-epoch row
# §3.3, the row of batch size 512 App. G.
PRESETS = {
  (40, 4096): (0.45, 1e-6, 0.97),
  (100, 4096): (0.45, 1e-6, 0.99),
  (300, 4096): (0.3, 1e-6, 0.99),
  (1000, 4096): (0.2, 1.5e-6, 0.996),
  (1000, 512): (0.4, 1.5e-6, 0.9995),
}


def view(*, blur_probability: float, solarize_probability: float) -> ConfigDict:
  """The paper's distribution of one view (App. B, Table 6)."""
  return ConfigDict(
    {
      "crop_area": (0.08, 1.0),
      "crop_aspect": (3 / 4, 4 / 3),
      # A window larger than the image is cut to it; "retried" draws another, as
      # SimCLR's code does, see input_pipeline/retried_crops.py.
      "crop_sampling": "clamped",
      "flip_probability": 0.5,
      "jitter_probability": 0.8,
      "brightness": 0.4,
      "brightness_mode": "add",  # or "multiply", as SimCLR v2 does
      "contrast": 0.4,
      "saturation": 0.2,
      "hue": 0.1,
      "grayscale_probability": 0.2,
      "blur_probability": blur_probability,
      "blur_sigma": (0.1, 2.0),
      "solarize_probability": solarize_probability,
      "solarize_threshold": 0.5,
    }
  )


def head() -> ConfigDict:
  """The paper's projector or predictor (§3.3)."""
  return ConfigDict(
    {
      "layers": 2,  # linear ones; BatchNorm and ReLU follow all but the last
      "hidden_size": 4096,
      "output_size": 256,
      "final_bias": False,  # True in the paper's pseudo-code (paper.md §10)
      "final_norm": False,  # SimCLR has a BatchNorm without offset at the end
    }
  )


def objective() -> ConfigDict:
  """BYOL's loss, in the family that §5 and App. F.4 span."""
  return ConfigDict(
    {
      # β: how much other images are pushed away; 1 is InfoNCE.
      "negatives_weight": 0.0,
      "temperature": 0.1,  # α, without effect where β is 0
      # Or "layer_norm", "batch_norm", "none" (App. F.6).
      "normalization": "l2",
      # What is predicted: "average" is the target network. "online_stopped" is
      # the online network without a gradient (a τ that stays 0), and "online"
      # is the same with one.
      "target": "average",
      # Predicts by regression on the batch (App. I.2); needs
      # model.predictor.layers=0. The paper states no ridge.
      "optimal_predictor": False,
      "ridge": 1e-4,  # of the mean of the diagonal
      # Of the loss. It matters to biases and BatchNorm, which LARS does not
      # adapt, and to the weight of the decay; 1 / 2α makes SimCLR's of InfoNCE.
      "multiplier": 1.0,
    }
  )


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` is explained at the top of this file."""
  given = common.parse_arg(
    arg, architecture="resnet50", width=1, epochs=1000, batch_size=4096
  )
  preset = (given["epochs"], given["batch_size"])
  if preset not in PRESETS:
    known = "; ".join(f"epochs={e},batch_size={b}" for e, b in PRESETS)
    raise ValueError(
      f"There is no preset for epochs={preset[0]},batch_size={preset[1]}; "
      f"known are {known}. Take one of them and override single values, such "
      "as --config.epochs=200."
    )
  base_learning_rate, weight_decay, base_target_decay = PRESETS[preset]

  config = ConfigDict()
  config.seed = 0
  config.epochs = float(given["epochs"])
  config.warmup_epochs = 10.0  # §3.3
  config.batch_size = given["batch_size"]
  # How the target decay follows another batch size: "linear" leaves it, and
  # only the learning rate grows with the batch; "ema" raises it to the power of
  # batch_size / reference_batch_size (arXiv 2307.13813), for which this
  # config's numbers were chosen.
  config.scaling = "linear"
  config.reference_batch_size = given["batch_size"]
  # Micro-batches per update; they share one optimizer step (App. F.2).
  config.accumulation_steps = 1
  config.base_learning_rate = base_learning_rate  # per 256 images
  config.base_target_decay = base_target_decay  # τ at the start
  config.target_init = "independent"  # or "copy" (paper.md §10 row 3)
  # Type of activations: "bfloat16", "float32", or "auto", which is bfloat16 on
  # accelerators. "float64" is for proofs: it is the type of everything, and
  # needs JAX_ENABLE_X64=1.
  config.dtype = "auto"
  # Type in which devices add up gradients: "params" is float32, as in the
  # authors' code; "activations" takes half the bytes if those are bfloat16. It
  # may change when a run is resumed.
  config.gradient_dtype = "params"

  config.optimizer = {
    "weight_decay": weight_decay,
    "momentum": 0.9,  # authors' configs/byol.py, like the next
    "trust_coefficient": 1e-3,
    # Of the updates of these parts alone (App. I.1).
    "projector_multiplier": 1.0,
    "predictor_multiplier": 1.0,
  }

  config.objective = objective()

  config.model = {
    "encoder": {
      "architecture": given["architecture"],
      "width": float(given["width"]),
      "stem": "imagenet",
      "shortcut": "projection",  # or "identity" (paper.md §10 row 17)
      "padding": "same",  # or "symmetric", as PyTorch's networks have it
      "zero_init_last": False,  # True in the released code (row 1)
      # Keep only the blocks' inputs for the gradient: less memory, more work.
      "recompute": False,
    },
    "projector": head(),
    # The same; without layers the projection itself is the prediction.
    "predictor": head(),
    "batch_norm": {"decay": 0.9, "epsilon": 1e-5},  # authors' configs/byol.py
    # Or "he" or "simclr", see byol_flax/models/initializers.py.
    "initializer": "fan_in",
    # By ImageNet's mean and deviation, or "unit": only to [0, 1], as SimCLR.
    # An encoder is evaluated as it was trained.
    "input_scaling": "imagenet",
  }

  config.data = {"name": "imagenet2012", "split": "train"}
  config.augment = {
    "size": 224,  # pixels
    # "host", or "accelerator": the host crops, and the step changes colours.
    "device": "host",
    # "none", or "device": all images lie on the devices, which crop them too.
    "cache": "none",
    # Decodes JPEGs at 1/2, 1/4 or 1/8 if both crops are that much larger than
    # `size`: faster for large photographs, but not the paper's pixels.
    "scaled_decoding": False,
    "view1": view(blur_probability=1.0, solarize_probability=0.0),
    "view2": view(blur_probability=0.1, solarize_probability=0.2),
  }

  # The sections below may change when a run is resumed; all others may not.
  config.loader = {
    "data_dir": config_dict.placeholder(str),  # TFDS's own default if unset
    # Processes that read and augment; -1 is one per core. An evaluation of many
    # images starts as many. With cache="device" one thread draws instead.
    "num_workers": -1,
    # A local folder, such as /dev/shm/byol, into which each host first copies
    # all shards of the splits that it reads; unset: they are read where they
    # lie. A part would not do: every batch has images of any shard. For the
    # same reason they come from a bucket one by one, while evaluations, which
    # read in order, get many by one request (`input_pipeline/read_ahead.py`).
    "stage_dir": config_dict.placeholder(str),
    # In each worker. 0 is one, which keeps a core busy, and 16 where the images
    # lie in a bucket and are not staged.
    "num_threads": 0,
    "max_unreadable_share": 0.001,  # of all images; above it the run stops
  }
  config.checkpoint = {
    "every_minutes": 10.0,
    "every_steps": 0,  # also after so many updates; 0: by time only
    "keep_last": 3,
    # For good: the first checkpoint after each multiple of so many updates.
    "keep_every": 50_000,
    # Whether the first Ctrl-C saves, as SIGTERM does, and does not end at once.
    # A save waits for the update, or the compilation, that is under way.
    "save_on_interrupt": False,
  }
  # Seconds that a process waits for the others of its run.
  config.deadlines = {
    "start_seconds": 300.0,  # until all are there
    "silence_seconds": 60.0,  # for a sign of life
    "stall_seconds": 1800.0,  # without progress; longer than a compilation
  }
  # What to do when the network collapses, and when that is so; the thresholds
  # are explained, and were calibrated, in byol_flax/pretrain/watchdog.py.
  config.watchdog = {
    # "warn"; "stop"; "roll_back", which goes on from a healthy checkpoint with
    # one change, once; or "off".
    "action": "warn",
    # Then "learning_rate" halves it, "views" draws another stream of them.
    "change": "learning_rate",
    "least_spread": 0.4,  # of the projections; share of the largest so far
    # Of the predictor; share of the loss. It is not judged where the target
    # follows within a few updates (base_target_decay below 0.97).
    "least_gain": 0.03,
    "patience": 10,  # updates in a row
  }
  config.report = {"every_steps": 50, "view_hashes": False}
  config.evaluation = {
    "split": "test",  # ImageNet's official validation images
    "bank_split": "train[:5%]",  # neighbours of kNN
    "neighbours": 20,
    "every_steps": 10_000,
    "batch_size": 1024,
    "crop_ratio": 0.875,  # authors' dataset.py: 224 / (224 + 32)
  }
  return config
