"""ImageNet's validation split, whoever prepared the set."""

import pytest
import tensorflow_datasets as tfds

from input_pipeline import known_sets, sources, tfds_order
from tests.input_pipeline.prepare.test_prepare import byol_prepare, jpeg, write

KEYS = [
  f"n{k:08d}_{i}.JPEG" for k in (1440764, 1443537, 9835506) for i in range(2000)
]


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 7])
def test_the_order_is_that_in_which_tfds_writes(tmp_path, shards):
  class Names(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      features = {"file_name": tfds.features.Text()}
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples() for split in ("train", "test")}

    def _generate_examples(self):
      for key in KEYS:
        yield key, {"file_name": key}

  Names.name = "names"
  builder = Names(data_dir=str(tmp_path), file_format="array_record")
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(num_shards=shards)
  )
  for split in ("train", "test"):
    info = builder.info.splits[split]
    assert (info.num_shards, info.num_examples) == (shards, len(KEYS))
    written = [
      record["file_name"].decode() for record in builder.as_data_source(split)
    ]
    assert [KEYS[i] for i in tfds_order.order(KEYS, split)] == written


@pytest.fixture
def imagenet(tmp_path):
  """A prepared set of 20 images, of which two are left out; and its names."""
  files = {
    f"{kind}/{kind}_{i}.jpg": jpeg(10 * k + i)
    for k, kind in enumerate(("n01440764", "n01443537"))
    for i in range(10)
  }
  files["n01443537/n01443537_3.jpg"] = files["n01440764/n01440764_2.jpg"]
  files["n01440764/n01440764_7.jpg"] = b"cut"
  byol_prepare(
    write(tmp_path / "photos", files),
    tmp_path,
    "--name=imagenet2012",
    "--version=5.1.0",
    "--workers=1",
  )
  tfds_order.last.cache_clear()
  return tmp_path, [name.split("/")[1] for name in files]


def facts(total, held):
  return known_sets.Facts(2, known_sets.splits_of_train(total, held))


def names_of(part):
  """File names of a part, as the records themselves have them."""
  numbers = range(len(part))
  while isinstance(part, sources.Part):
    numbers, part = [int(part.examples[i]) for i in numbers], part.source
  return {part._records[i]["file_name"].decode().split("/")[1] for i in numbers}


def test_valid_of_a_prepared_imagenet_is_the_papers(imagenet, monkeypatch):
  data_dir, names = imagenet
  monkeypatch.setitem(known_sets.KNOWN, "imagenet2012", facts(20, 6))
  keys = [name.replace(".jpg", ".JPEG") for name in names]
  last = {names[i] for i in tfds_order.order(keys, "train")[-6:]}
  train, valid, rest, half = (
    sources.open_source("imagenet2012", split, str(data_dir))
    for split in (
      "train",
      "valid",
      "train_without_valid",
      "train_without_valid[:50%]",
    )
  )
  assert len(names_of(train)) == 18
  assert names_of(valid) == last & names_of(train)
  assert names_of(rest) == names_of(train) - last
  assert len(valid) + len(rest) == len(train)
  assert sources.shared_examples(valid, half) == 0
  assert sources.shared_examples(valid, train) == len(valid)
  for part in (valid, half):
    assert "as in the paper" in sources.how_held_out(part)
    assert part.fingerprint.endswith("by names")
  assert not sources.how_held_out(train)


def test_with_other_names_the_end_is_taken_and_told(imagenet, monkeypatch):
  data_dir, _ = imagenet
  monkeypatch.setitem(known_sets.KNOWN, "imagenet2012", facts(18, 6))
  valid = sources.open_source("imagenet2012", "valid", str(data_dir))
  assert len(valid) == 6
  assert "but not the paper's" in sources.how_held_out(valid)
