"""Names of the authors' modules."""

import pytest

from byol_flax.weights import haiku_names

NAMES = {
  ("res_net50/~/initial_conv", "w"): "encoder/stem_conv/kernel",
  ("x/~/initial_batchnorm", "offset"): "encoder/stem_norm/offset",
  (
    "res_net200/~/block_group_1/~/block_23/~/conv_2",
    "w",
  ): "encoder/group1_block23/conv2/kernel",
  (
    "r/~/block_group_3/~/block_0/~/shortcut_batchnorm/~/var_ema",
    "average",
  ): "encoder/group3_block0/shortcut_norm/variance",
  (
    "r/~/block_group_0/~/block_0/~/batchnorm_1/~/mean_ema",
    "counter",
  ): "encoder/group0_block0/norm1/count",
  ("projector/linear", "b"): "projector/linear0/bias",
  ("projector/linear_2", "w"): "projector/linear2/kernel",
  ("predictor/batch_norm", "scale"): "predictor/norm/scale",
  ("predictor/batch_norm_1/~/mean_ema", "average"): "predictor/norm1/mean",
  ("classifier", "b"): "classifier/bias",
}


@pytest.mark.parametrize("names", NAMES)
def test_our_paths(names):
  assert haiku_names.our_path(*names) == NAMES[names]


@pytest.mark.parametrize(
  "names",
  [
    ("classifier", "average"),
    ("classifier/linear", "w"),
    ("projector", "w"),
    ("projector/conv_1", "w"),
    ("res_net50/~/logits", "w"),
    ("res_net50/~/block_group_0/~/block_0/~/other_0", "w"),
    ("res_net50/~/block_group_0/~/block_0/~/conv_0/~/more", "w"),
    ("res_net50/~/initial_batchnorm/~/mean_ema", "hidden"),
    ("res_net50/~/initial_batchnorm/~/var_ema", "counter"),
    ("res_net50/~/initial_batchnorm/~/mean_ema", "w"),
  ],
)
def test_what_is_none_of_ours(names):
  assert haiku_names.our_path(*names) is None
