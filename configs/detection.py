r"""Object detection by Faster R-CNN, R50-C4 (paper §4, App. D.5, Table 4a).

Command: byol evaluate --config=configs/detection.py --encoder=RUN \
  --workdir=DIR --config.data_name=voc:VOCdevkit/VOC2007
Any other set in the layout of VOC is read too, and TFDS's voc/2007.
Argument after the colon: `appendix=1` for the schedule and the frozen encoder
of App. D.5; otherwise the recipe of MoCo, which the paper's body cites.
Paper, ResNet-50: AP50 77.5. Measured: not yet run.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` is explained at the top of this file."""
  given = common.parse_arg(arg, appendix=0)
  config = common.dense_protocol("detection")
  config.data_name = "voc:VOCdevkit/VOC2007"
  config.train_split = "trainval"
  config.test_split = "test"
  config.encoder = "fine_tuned"  # or "frozen", its BatchNorm's averages too
  # MoCo (arXiv 1911.05722) App. A.1 and its released detection configs, whose
  # 24,000 updates drop at 18,000 and 22,000.
  config.batch_size = 16
  config.steps = 9_000
  config.warmup_steps = 100
  config.drops = (18 / 24, 22 / 24)
  config.learning_rate = 0.02
  config.weight_decay = 1e-4
  config.seeds = (0, 1, 2, 3, 4)
  config.short_edges = tuple(range(480, 801, 32))  # one for each batch
  config.longest_edge = 1333
  config.test_edge = 800
  config.flip_probability = 0.5
  config.buckets = 3  # sizes of canvas, of either orientation
  config.max_boxes = 100  # of an image; the rest is left out, and told
  # Below: Detectron2's defaults for its C4 networks, unless a line says more.
  config.anchors = {
    "sizes": (32, 64, 128, 256, 512),
    "ratios": (0.5, 1.0, 2.0),
  }
  config.rpn = {
    "batch": 256,  # anchors of an image that are trained on
    "positive_share": 0.5,
    "positive_iou": 0.7,
    "negative_iou": 0.3,
    "nms_iou": 0.7,
    "train_before": 12_000,  # proposals before and after suppression
    "train_after": 2_000,
    "test_before": 6_000,
    "test_after": 1_000,
  }
  config.roi = {
    "batch": 512,  # proposals of an image that are trained on
    "positive_share": 0.25,
    "iou": 0.5,
    "pool_size": 14,
    # Points of each bin along an edge. Detectron2 takes more for larger boxes,
    # which has no static shape.
    "sampling_ratio": 2,
  }
  config.test = {"score": 0.05, "nms_iou": 0.5, "detections": 100}
  # App. D.5 has nine asynchronous workers and does not say what each is given;
  # here all of a batch are synchronous.
  if given["appendix"]:
    config.encoder = "frozen"
    config.batch_norm = "frozen"
    config.batch_size = 8
    config.steps = 1_500_000
    config.warmup_steps = 0
    config.drops = (10 / 15, 12 / 15)
    config.learning_rate = 1e-3
    config.flip_probability = 0.0
    # It draws the longest edge, from 480 to 1024; these are the short edges of
    # photographs of 4 : 3, as most of VOC's are.
    config.short_edges = tuple(range(360, 769, 24))
    config.longest_edge = 1024
    config.seeds = (0,)
  return config
