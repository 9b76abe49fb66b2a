"""The ablations: all rows are there, and every scale can run them."""

import itertools
import numbers

import pytest

from byol_flax.commands import config_bounds
from byol_flax.pretrain import objective
from byol_flax.reports import ablations
from configs import ablation_rows, byol, scales
from configs import ablations as config_file

# Counted by hand in the paper; Table 19 prints one of its 13 rows twice. Two
# rows stand in the text (5a: random weights, 21: the optimal predictor), and
# one in a caption (15: no weight decay).
COUNTS = {
  **{"5a": 5 + 1, "5b": 8, "14": 9 + 6, "15": 7 + 5 + 1, "16": 2 * 7},
  **{"17": 2 * 14, "18": 6 * 3 + 1, "19": 13 - 1, "20": 4, "21": 6 + 1},
  **{"22": 5 * 5, "3a": 2 * 6, "3b": 2 * 5},
}
ROWS = [
  (table, row) for table, rows in ablation_rows.ROWS.items() for row in rows
]
NOT_ON_DIGITS = {("16", "byol_64"), ("16", "simclr_64")}


def test_every_row_is_there_with_its_settings_and_its_numbers():
  settings, numbers_of = ablation_rows.ROWS, ablations.ABLATIONS
  assert {table: len(rows) for table, rows in settings.items()} == COUNTS
  assert set(numbers_of) == set(settings)
  for table, ablation in numbers_of.items():
    assert set(ablation.rows) == set(settings[table]), table
    assert len({row.label for row in ablation.rows.values()}) == COUNTS[table]


@pytest.mark.parametrize(
  ("table", "row", "top1", "spread", "top5"),
  [
    ("5a", "1", 18.8, 0.7, None),
    ("5b", "online_1", 69.4, 0.25, None),
    ("14", "projector_1_predictor_3", 65.7, 0.25, 86.8),
    ("14", "output_16", 69.9, 0.3, 89.9),
    ("15", "learning_rate_0.01", 34.8, 3.0, 60.8),
    ("16", "simclr_64", 59.2, 2.9, 83.0),
    ("17", "simclr_crop_colour", 64.2, 0.25, 86.2),
    ("18", "alpha_0.01_beta_1", 53.9, 0.5, 77.5),
    ("19", "predictor_stopped_0", 5.5, 0.25, None),
    ("20", "batch_norm", 65.3, 0.25, 85.3),
    ("21", "lambda_0", 0.01, 0.25, None),
    ("22", "mu_2_lambda_1.5", 5.3, 1.9, None),
    ("3b", "byol_crop_blur", 61.1, 0.3, 83.9),
  ],
)
def test_numbers_of_the_paper(table, row, top1, spread, top5):
  found = ablations.ABLATIONS[table].rows[row]
  assert (found.top1.mean, found.top1.spread) == (top1, spread)
  assert (found.top5.mean if found.top5 else None) == top5


def test_rows_of_the_baseline_have_its_number():
  for ablation in ablations.ABLATIONS.values():
    for row in ablation.rows.values():
      if row.label.endswith("(BYOL)"):
        assert row.top1.mean == 72.5


@pytest.mark.slow
@pytest.mark.parametrize("scale", scales.SCALES)
def test_every_row_is_a_config_that_a_run_takes(scale):
  for table, row in ROWS:
    arg = f"{table}/{row},scale={scale}"
    if scale == "digits" and (table, row) in NOT_ON_DIGITS:
      with pytest.raises(
        ValueError, match=r"nothing corresponds to.*one image"
      ):
        config_file.get_config(arg)
      continue
    config = config_file.get_config(arg)
    config_bounds.check(config)
    objective.check(config)
    assert config.batch_size // config.accumulation_steps >= 2
    sizes = {
      config.model[head].output_size for head in ("projector", "predictor")
    }
    assert len(sizes) == 1
  config_bounds.check(config_file.get_config(f"scale={scale},evaluation=1"))


@pytest.mark.slow
def test_imagenet_has_the_papers_values():
  baseline = byol.get_config("epochs=300").to_dict()
  assert config_file.get_config("").to_dict() == baseline
  for table, row in ROWS:
    config = config_file.get_config(f"{table}/{row}")
    changes = ablation_rows.ROWS[table][row]
    assert {
      key: config_bounds.value_of(config, key) for key in changes
    } == changes
    config.update_from_flattened_dict(
      {
        key: config_bounds.value_of(config_file.get_config(), key)
        for key in changes
      }
    )
    assert config.to_dict() == baseline


@pytest.mark.parametrize("scale", ["cifar10", "digits"])
def test_a_scale_keeps_the_order_of_values(scale):
  found = {}
  for table, row in ROWS:
    if scale == "digits" and (table, row) in NOT_ON_DIGITS:
      continue
    changes = ablation_rows.ROWS[table][row]
    for key, value in scales.translated(scale, changes).items():
      found.setdefault(key, {})[changes[key]] = value
  assert set(found) == set(scales.KNOBS)
  for key, values in found.items():
    if not isinstance(next(iter(values)), numbers.Real):
      continue
    rising = [values[value] for value in sorted(values)]
    pairs = list(itertools.pairwise(rising))
    if getattr(scales.KNOBS[key], scale) == scales.LEFT_OUT:
      assert set(rising) == {0.0}
    else:
      assert all(low < high for low, high in pairs), (key, values)


def test_digits_in_numbers():
  config = config_file.get_config("14/output_16,scale=digits")
  assert config.model.projector.output_size == 2  # 32 / 256 of the paper's
  assert type(config.model.projector.output_size) is int
  rate = config_file.get_config("15/learning_rate_0.1,scale=digits")
  assert rate.base_learning_rate == pytest.approx(6.0)  # a third of 18


@pytest.mark.parametrize(
  ("arg", "message"),
  [
    ("6/x", "no ablation '6/x'.*such as 5a/0.9"),
    ("5a", "Table 5a has no row ''; it has initialisation, 1"),
    ("5b/targt_1", "no row 'targt_1'.*mean '5b/target_1'"),
    ("5a/0.9,scale=digit", "no scale 'digit'; known are.*mean 'digits'"),
    ("5a/0.9,seed=1", "Unknown config argument 'seed'"),
  ],
)
def test_bad_arguments_are_told(arg, message):
  with pytest.raises(ValueError, match=message):
    config_file.get_config(arg)
