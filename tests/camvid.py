"""Segmentation of CamVid's street scenes, from BYOL and from random weights.

Command: python -m tests.camvid --data=CAMVID --workdir=DIR [--minutes=40]
  [--seeds=0,1,2] [--config.NAME=VALUE ...]

CAMVID is laid out as VOC: 367 train and 101 val images of 480 × 360 pixels, 11
classes, 255 is void. See tests/dense_proof.py for what is done. Prints mean IoU
on val, which no training sees, for each seed, and per class.

Measured on one H200, beside tests/bccd.py and tests/depth_frames.py: mean IoU
0.588 from BYOL and 0.582 from random weights, with --minutes=2 --seeds=0,1
--config.batch_size=16 --config.steps=1500 --config.crop_size=321
--config.checkpoint.every_steps=400 --config.num_workers=5. What stands below,
for two cores, was only begun.
"""

from tests import dense_proof

FLAGS = (
  "--config.train_split=train",
  "--config.test_split=val",
  "--config.held_out=0",
  "--config.learning_rates=(0.05,)",
  "--config.batch_size=8",
  "--config.evaluation_batch_size=8",
  "--config.steps=1200",
  "--config.warmup_steps=60",
  "--config.crop_size=257",
  "--config.scales=(0.6,1.6)",
  "--config.inference=whole",
  "--config.checkpoint.every_steps=200",
  "--config.report_every_steps=20",
)


def line(result):
  classes = ", ".join(
    f"{name} {'-' if iou is None else format(iou, '.2f')}"
    for name, iou in result["per_class"].items()
  )
  return (
    f"mean IoU {dense_proof.spread(result['spread'])}; pixels "
    f"{result['pixel_accuracy']:.3f}; {classes}"
  )


def main():
  options, flags = dense_proof.parse(__doc__)
  config, run = dense_proof.pretrain(
    options, options.data / "ImageSets" / "Segmentation" / "train.txt"
  )
  task = (
    f"--config={dense_proof.ROOT}/configs/segmentation.py",
    f"--config.data_name=voc:{options.data}",
  )
  dense_proof.compare(options, [*task, *FLAGS, *flags], config, run, line)


if __name__ == "__main__":
  main()
