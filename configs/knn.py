"""Classification of a test split by its nearest neighbours in a training split.

Command: byol evaluate --config=configs/knn.py --encoder=RUN --workdir=DIR
This is no protocol of the paper. The search is exact, by the cosine of
representations. The scheme, the numbers of neighbours and the temperature are
those of DINOv2 (facebookresearch/dinov2, dinov2/eval/knn.py).

It keeps no features, so that after a kill or a preemption it begins anew. All
that it costs is one pass over the images, forward only: less than one of the
1,000 epochs that trained the encoder. And the bank of ImageNet, 10 GB with
ResNet-50 (1.28 million × 2,048 in float32), is never whole on one host, from
where it could be written; see byol_flax/evaluation/rows.py.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; there are no arguments."""
  common.parse_arg(arg)
  config = common.protocol("knn")
  config.train_split = "train"  # the bank; only its labelled images count
  config.test_split = "test"
  config.batch_size = 512
  config.neighbours = (10, 20, 100, 200)  # all from one search
  # There are two votes: the majority, where the closest of tied classes wins,
  # and the sum of exp(cosine / temperature) over the neighbours of a class.
  config.temperature = 0.07
  return config
