"""The paper's sets, as TFDS delivers them, divided as Table 10 says.

`python -m tests.reach_sets` runs the paper's suite on them.
"""

import numpy as np
import pytest

from byol_flax.evaluation import three_splits
from configs import finetune as finetune_config
from configs import sets
from configs import transfer as transfer_config
from input_pipeline import decoding, known_sets, sources, subsets
from tests import small_sets
from tests.evaluation import settings

# In one process of xdist, which makes the copies once.
pytestmark = pytest.mark.xdist_group("paper_sets")


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
  """(data_dir, names of the sets that are folders)."""
  out = tmp_path_factory.mktemp("sets")
  small_sets.write(out)
  return out, small_sets.write_folders(out)


@pytest.fixture(autouse=True)
def small(monkeypatch):
  monkeypatch.setattr(known_sets, "KNOWN", small_sets.known())


@pytest.fixture(scope="module")
def opened():
  return settings.untrained(settings.mesh_of(1))


# Images of train, valid and test in the small copies; the rest of Table 10's
# columns is in `sets.SETS`.
SIZES = {
  "food101": (13, 5, 12),
  "cifar10": (13, 5, 12),
  "cifar100": (13, 5, 12),
  "birdsnap": (12, 6, 6),
  "sun397": (12, 30, 18),
  "cars": (13, 5, 12),
  "aircraft": (12, 9, 9),
  "voc2007": (15, 12, 12),
  "dtd": (15, 12, 12),
  "pets": (12, 60, 12),
  "caltech101": (12, 15, 12),
  "flowers": (15, 12, 12),
}
NUM_CLASSES = {  # Table 10; of folders only those that are there
  **{"food101": 101, "cifar10": 10, "cifar100": 100, "birdsnap": 3},
  **{"sun397": 397, "cars": 196, "aircraft": 3, "voc2007": 20, "dtd": 47},
  **{"pets": 37, "caltech101": 102, "flowers": 102},
}


@pytest.mark.slow
@pytest.mark.parametrize("module", [transfer_config, finetune_config])
@pytest.mark.parametrize("name", sets.SETS)
def test_a_set_opens_as_table_10_divides_it(
  name, module, copies, opened, tmp_path
):
  mine = settings.setting(
    module.get_config(name),
    tmp_path,
    opened=opened,
    **small_sets.changes(name, *copies),
  )
  found = three_splits.open_splits(mine)
  assert tuple(map(len, found.named.values())) == SIZES[name]
  assert found.num_classes == NUM_CLASSES[name]
  several = name == "voc2007"
  assert (mine.config.metric == "map11") == several
  for split, source in found.named.items():
    labels = found.labels[split]
    assert labels.ndim == 1 + several
    present = np.flatnonzero(
      np.any(labels == 1, axis=0) if several else np.bincount(labels)
    )
    assert len(present) == small_sets.CLASSES
    trained = found.to_train_on(split)
    np.testing.assert_array_equal(trained[1]["label"], labels[1])
    assert trained.num_classes == found.num_classes
    for other in found.named.values():
      assert other is source or not sources.shared_examples(source, other)
  per_class = {"sun397": 10, "pets": 20, "caltech101": 5, "birdsnap": 2}
  if count := per_class.get(name):
    held = found.labels["valid"]
    assert (np.bincount(held)[np.unique(held)] == count).all()
    assert "drawn with seed 0" in found.choices[0]


@pytest.mark.parametrize(
  ("name", "splits"),
  [
    ("imagenet2012", {"train": 30, "train_without_valid": 22, "valid": 8}),
    ("imagenet2012_subset/1pct", {"train": 12}),
    ("imagenet2012_subset/10pct", {"train": 18}),
    ("places365_small", {"train": 24, "train_without_valid": 18, "valid": 6}),
  ],
)
def test_imagenet_its_subsets_and_places_open(name, splits, copies):
  for split, count in {**splits, "test": 12}.items():
    source = sources.open_source(name, split, str(copies[0]))
    assert len(source) == count
    assert source.num_classes == (365 if "places" in name else 1000)
    assert set(subsets.labels_of(source)) == {0, 1, 2}


def test_imagenets_valid_is_told_to_be_the_papers(copies):
  for split in ("valid", "train_without_valid"):
    source = sources.open_source("imagenet2012", split, str(copies[0]))
    assert sources.how_held_out(source) == (
      "valid is the end of TFDS's order, as in the paper (App. C.1)."
    )


def test_files_of_the_archive_of_sun397_are_read_or_told(copies):
  source = sources.open_source("sun397/standard-part1-120k", "test", copies[0])
  unreadable = 0
  for i in range(len(source)):
    example = source[i]
    try:
      image = decoding.decode_image(example["image"])
    except decoding.ImageError:
      unreadable += 1
      continue
    assert image.shape[1:] == (20, 3)
  assert unreadable == 1


def test_images_of_the_subset_are_found_in_imagenet(copies):
  out, _ = copies
  names = ("imagenet2012_subset/1pct", "imagenet2012")
  listing, whole = (
    sources.open_source(name, "train", str(out)) for name in names
  )
  wanted = {*subsets.names_of(listing)}
  valid = sources.open_source("imagenet2012", "test", str(out))
  found, _ = subsets.listed(whole, valid, wanted, names[0])
  assert len(wanted) == len(found) == 12
  assert {whole.file_name(int(i)) for i in found} == wanted
  labels = {whole.file_name(int(i)): int(whole[int(i)]["label"]) for i in found}
  for i in range(12):
    assert labels[listing.file_name(i)] == listing[i]["label"]
