"""Detection of blood cells in BCCD, from BYOL and from random weights.

Command: python -m tests.bccd --data=BCCD --workdir=DIR [--minutes=40]
  [--seeds=0,1,2] [--config.NAME=VALUE ...]

BCCD is laid out as VOC: 205 train and 87 val photographs of 640 × 480 pixels,
with boxes of 3 classes. See tests/dense_proof.py for what is done. Prints AP50
and AP50:95 on val, which no training sees, for each seed.

Measured on one H200, beside tests/camvid.py and tests/depth_frames.py: AP50
0.867 from BYOL and 0.870 from random weights, with --minutes=2 --seeds=0,1
--config.batch_size=8 --config.steps=1200 --config.learning_rate=0.02
--config.short_edges=(352,400,448) --config.test_edge=400
--config.longest_edge=600 --config.anchors.sizes=(24,48,96,192)
--config.rpn.train_after=300 --config.rpn.test_after=300 --config.roi.batch=128
--config.evaluation_batch_size=8 --config.checkpoint.every_steps=300
--config.num_workers=5. What stands below, for two cores, was only begun.
"""

from tests import dense_proof

# Smaller than configs/detection.py: one size of image, and as many proposals as
# two cores can take.
FLAGS = (
  "--config.train_split=train",
  "--config.test_split=val",
  "--config.batch_size=4",
  "--config.evaluation_batch_size=4",
  "--config.steps=800",
  "--config.warmup_steps=100",
  "--config.learning_rate=0.01",
  "--config.short_edges=(320,)",
  "--config.test_edge=320",
  "--config.longest_edge=432",
  "--config.buckets=1",
  "--config.max_boxes=40",
  "--config.anchors.sizes=(16,32,64,128)",
  "--config.rpn.train_before=1000",
  "--config.rpn.train_after=200",
  "--config.rpn.test_before=1000",
  "--config.rpn.test_after=200",
  "--config.roi.batch=64",
  "--config.roi.pool_size=14",
  "--config.checkpoint.every_steps=200",
  "--config.report_every_steps=20",
)


def line(result):
  measures = ", ".join(
    f"{name} {dense_proof.spread(found)}"
    for name, found in result["spreads"].items()
  )
  classes = ", ".join(
    f"{name} {'-' if ap is None else format(ap, '.2f')}"
    for name, ap in result["per_class"].items()
  )
  return f"{measures}; ap50 of {classes}"


def main():
  options, flags = dense_proof.parse(__doc__)
  config, run = dense_proof.pretrain(
    options, options.data / "ImageSets" / "Main" / "train.txt"
  )
  task = (
    f"--config={dense_proof.ROOT}/configs/detection.py",
    f"--config.data_name=voc:{options.data}",
  )
  dense_proof.compare(options, [*task, *FLAGS, *flags], config, run, line)


if __name__ == "__main__":
  main()
