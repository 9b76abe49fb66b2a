"""Classification of a test split by its nearest neighbours in a training split.

Command: byol evaluate --config=configs/knn.py --encoder=RUN --workdir=DIR
Not a protocol of the paper. Exact, by the cosine of representations; the
scheme, the numbers of neighbours and the temperature are those of DINOv2
(facebookresearch/dinov2, dinov2/eval/knn.py).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; there is nothing to say after a colon."""
  common.parse_arg(arg)
  config = common.protocol("knn")
  config.train_split = "train"  # the bank, of which only labelled images count
  config.test_split = "test"
  config.batch_size = 512
  config.neighbours = (10, 20, 100, 200)  # all from one search
  # Two votes: the majority, of tied classes the closer one; and the sum of
  # exp(cosine / temperature) over the neighbours of a class.
  config.temperature = 0.07
  return config
