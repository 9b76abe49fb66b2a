"""The paper's numbers: complete, in their places, and the same everywhere."""

import pytest

from byol_flax.reports import paper
from byol_flax.reports.paper import Network
from configs import sets

R50 = Network("resnet50", 1)


def test_every_table_has_all_numbers_of_its_encoders():
  encoders = {
    "1": 4,
    "2": 4,
    "3": 3,
    "4a": 2,
    "4b": 2,
    "7": 3,
    "8": 1,
    "9": 24,
    "13": 2,
  }
  columns = {
    "1": 2,
    "2": 4,
    "3": 24,
    "4a": 2,
    "4b": 5,
    "7": 8,
    "8": 2,
    "9": 4,
    "13": 13,
  }
  for number, table in paper.TABLES.items():
    assert len(table.rows) == encoders.pop(number)
    assert len(set(table.columns)) == columns[number]
    for row in table.rows.values():
      assert len(row) == columns[number]
      numbers = dict(zip(table.columns, row, strict=True))
      assert set(numbers.values()) != {None}
      for column, value in numbers.items():
        high = 1 if column in table.units else 100
        assert value is None or high / 10 < value < high
  assert not encoders


@pytest.mark.parametrize(
  ("table", "network", "column", "value"),
  [
    ("1", R50, "top-1", 74.3),
    ("1", Network("resnet200", 2), "top-5", 94.8),
    ("2", Network("resnet50", 4), "10 %, top-1", 75.7),
    ("2", R50, "1 %, top-5", 78.4),
    ("3", R50, "Flowers, linear", 96.1),
    ("3", R50, "Food101, fine-tuned", 88.5),
    ("3", R50, "VOC2007, fine-tuned", 85.4),
    ("3", Network("resnet50", 1, by="labels"), "Pets, linear", 91.5),
    ("3", paper.untrained("resnet50", 1), "VOC2007, fine-tuned", 67.3),
    ("3", paper.untrained("resnet50", 1), "Flowers, linear", None),
    ("4a", R50, "AP50", 77.5),
    ("4a", R50._replace(by="labels"), "mIoU", 74.4),
    ("4b", R50, "pct<1.25²", 96.7),
    ("4b", R50, "rms", 0.541),
    ("4b", R50._replace(by="labels"), "rel", 0.127),
    ("4b", R50._replace(by="labels"), "pct<1.25³", 98.8),
    ("7", R50, "crop and flip, logits regularised, top-1", 74.7),
    ("8", R50, "top-1", 77.7),
    ("9", Network("resnet152", 3), "top-5", 94.6),
    ("9", Network("resnet200", 2), "top-5", 94.9),  # Table 1 has 94.8
    ("9", paper.untrained("resnet50", 1), "supervised, top-5", 92.9),
    ("9", paper.untrained("resnet152", 3), "supervised, top-1", 80.9),
    ("9", R50, "supervised, top-1", None),
    ("13", R50, "Birdsnap", 57.3),  # Table 3 has 57.2
    ("13", Network("resnet50", 1, paper.PLACES365), "Places365", 53.2),
    ("13", Network("resnet50", 1, paper.PLACES365), "Flowers", 90.0),
    ("1", Network("resnet18", 1), "top-1", None),
    ("2", Network("resnet101", 1), "1 %, top-1", None),
  ],
)
def test_a_number_of_the_paper(table, network, column, value):
  assert paper.TABLES[table].number(network, column) == value


def test_the_sets_are_those_that_are_evaluated():
  assert list(paper.SETS) == list(sets.SETS)
