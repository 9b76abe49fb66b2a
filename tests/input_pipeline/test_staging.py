"""Shards are copied once, whole and verified, and read as the originals are."""

import json
import os
import shutil
import threading
import time
import types
import zlib

import numpy as np
import pytest
from etils import epath

from byol_flax.evaluation import online
from byol_flax.runs import buckets, data_sets, distributed, stage
from configs import byol_digits
from input_pipeline import copying, retries, staging
from input_pipeline.errors import RunError, StorageError, UsageError
from input_pipeline.sources import open_source, place_of
from tests import prepare_cifar10
from tests.input_pipeline.prepare.test_prepare import byol_prepare, jpeg
from tests.input_pipeline.test_tfds_sources import CIFAR10, NAMES


@pytest.fixture(scope="module")
def cifar10_dir(tmp_path_factory):
  out = str(tmp_path_factory.mktemp("tfds"))
  prepare_cifar10.write_cifar10(out, CIFAR10, NAMES)
  return out


LONG = 300  # seconds for what takes one


def shards(folder, sizes, seed=0):
  """Writes a folder of shards with random bytes, and metadata; its place."""
  rng = np.random.default_rng(seed)
  folder.mkdir(parents=True)
  names = [f"x-train.array_record-{k:05d}-of-00007" for k in range(len(sizes))]
  for name, size in zip(names, sizes, strict=True):
    (folder / name).write_bytes(rng.bytes(size))
  (folder / "dataset_info.json").write_text("{}")
  (folder / "x-test.array_record-00000-of-00001").write_bytes(b"not read")
  (folder / "inner").mkdir()
  return staging.Place(
    str(folder), "x/1.0.0", frozenset(names), str(folder.parent / "stage")
  )


def staged(place, seconds=LONG):
  """What a `Staging` of `place` copied, in bytes."""
  work = staging.Staging(place)
  assert work.wait(seconds)
  assert work.bytes_done == work.bytes_wanted
  return work.bytes_done


def contents(folder):
  return {path.name: path.read_bytes() for path in epath.Path(folder).iterdir()}


SIZES = (0, 1, 999, 1000, 1001, 2000, 5321)


def test_every_shard_that_is_read_is_copied_and_no_other(tmp_path, monkeypatch):
  monkeypatch.setattr(copying, "_RANGE", 1000)
  place = shards(tmp_path / "original", SIZES)
  assert not place.complete()
  assert staged(place) == sum(SIZES) + 2
  assert place.complete()
  copies = contents(place.copy)
  lines = [json.loads(x) for x in copies.pop("staged.jsonl").splitlines()]
  assert set(copies) == {*place.shards, "dataset_info.json"}
  for name, data in copies.items():
    assert data == (tmp_path / "original" / name).read_bytes()
  assert {x["name"]: x["crc32"] for x in lines} == {
    name: f"{zlib.crc32(data):08x}" for name, data in copies.items()
  }


def test_what_is_whole_is_used_again_and_the_rest_is_copied_anew(tmp_path):
  place = shards(tmp_path / "original", SIZES)
  staged(place)
  assert staged(place) == 0
  copy, original = epath.Path(place.copy), tmp_path / "original"
  gone, cut, changed, torn, *_ = sorted(place.shards, reverse=True)
  kept = {
    name: os.stat(copy / name).st_ino
    for name in place.shards - {gone, cut, changed, torn}
  }
  (copy / gone).unlink()
  (copy / f"{gone}.part").write_bytes(b"left by a kill")
  (copy / "x-old.part").write_bytes(b"left by a kill")
  (copy / cut).write_bytes(b"")
  (original / changed).write_bytes(b"of another size")
  lines = (copy / "staged.jsonl").read_bytes().splitlines()
  lines = [x for x in lines if torn.encode() not in x]
  (copy / "staged.jsonl").write_bytes(b"\n".join([*lines, b'{"name": "x-']))
  assert not place.complete()
  sizes = [os.stat(original / x).st_size for x in (gone, cut, changed, torn)]
  assert staged(place) == sum(sizes)
  assert place.complete()
  assert not (copy / "x-old.part").exists()
  for name in place.shards:
    assert (copy / name).read_bytes() == (original / name).read_bytes()
  assert kept == {name: os.stat(copy / name).st_ino for name in kept}
  # A file of the same size that was written later is another one.
  os.utime(original / gone, (1, 1))
  assert staged(place) == sizes[0]


def test_processes_of_a_host_share_one_copy(tmp_path, monkeypatch):
  monkeypatch.setattr(copying, "_RANGE", 100)
  place = shards(tmp_path / "original", [20_000] * 7)
  works = [staging.Staging(place) for _ in range(3)]
  assert all(work.wait(LONG) for work in works)
  assert sorted(work.bytes_done for work in works) == [0, 0, 140_002]


def test_a_copy_that_is_stopped_goes_on_later(tmp_path, monkeypatch):
  monkeypatch.setattr(copying, "_RANGE", 100)
  begun, stopped = threading.Event(), threading.Event()

  def checksum(*given):  # of a range, each but the first after the stop
    if begun.is_set():
      stopped.wait(LONG)
    begun.set()
    return zlib.crc32(*given)

  monkeypatch.setattr(copying, "zlib", types.SimpleNamespace(crc32=checksum))
  place = shards(tmp_path / "original", [2_000] * 7)
  work = staging.Staging(place)
  assert begun.wait(LONG)
  work.stop()
  stopped.set()
  assert work.wait(LONG)
  assert 0 < work.bytes_done < work.bytes_wanted
  assert not place.complete()
  monkeypatch.undo()
  assert staged(place) > 0
  assert place.complete()


@pytest.mark.parametrize("missing", [0, 1])
def test_what_does_not_fit_is_refused_before_a_byte_is_copied(
  tmp_path, monkeypatch, missing
):
  place = shards(tmp_path / "original", SIZES)
  free = sum(SIZES) + 2 + 2**30 - missing
  total, used, _ = shutil.disk_usage(tmp_path)
  usage = type(shutil.disk_usage(tmp_path))(total, used, free)
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
  work = staging.Staging(place)
  if not missing:
    assert work.wait(LONG)
    return
  with pytest.raises(UsageError, match=r"has 1\.1 GB free, but 0\.0 GB of x/1"):
    work.wait(LONG)
  assert not [x for x in contents(place.copy) if x.startswith("x-")]


def test_an_absent_shard_is_named(tmp_path):
  place = shards(tmp_path / "original", SIZES)
  gone = min(place.shards)
  (tmp_path / "original" / gone).unlink()
  with pytest.raises(UsageError, match=f"1 are absent, such as {gone}"):
    staging.Staging(place).wait(LONG)


def copy(original, target, size):
  return copying.copy(epath.Path(original), str(target), size, lambda n: None)


def test_a_stalled_transfer_is_begun_again(tmp_path, monkeypatch):
  monkeypatch.setattr(copying, "_STALL_SECONDS", 0.2)
  monkeypatch.setattr(retries, "DELAYS", (0.01,) * 2000)
  original, target = tmp_path / "original", tmp_path / "copy"
  data = np.random.default_rng(0).bytes(5000)
  (tmp_path / "mended").write_bytes(data)
  os.mkfifo(original)  # whoever opens it waits for ever
  mend = threading.Timer(0.5, os.replace, (tmp_path / "mended", original))
  begun = time.monotonic()
  mend.start()
  assert copy(original, target, 5000) == zlib.crc32(data)
  assert time.monotonic() - begun >= 0.4
  mend.join()
  assert target.read_bytes() == data


def test_a_short_transfer_is_noticed(tmp_path, monkeypatch):
  monkeypatch.setattr(copying, "_RANGE", 1000)
  original, target = tmp_path / "original", tmp_path / "copy"
  data = np.random.default_rng(0).bytes(2500)
  original.write_bytes(data[:2400])
  monkeypatch.setattr(retries, "DELAYS", (0.01, 0.01))
  with pytest.raises(StorageError, match="gave 400 of 500 bytes from 2,000 on"):
    copy(original, target, 2500)
  assert not target.exists()
  monkeypatch.setattr(retries, "DELAYS", (0.2,) * 2000)
  mend = threading.Timer(0.1, original.write_bytes, (data,))
  mend.start()
  assert copy(original, target, 2500) == zlib.crc32(data)
  mend.join()
  assert target.read_bytes() == data


def test_local_storage_that_changes_bytes_is_noticed(tmp_path, monkeypatch):
  original, target = tmp_path / "original", tmp_path / "copy"
  original.write_bytes(b"0123456789")

  def flip(number):
    os.pwrite(number, b"!", 5)

  monkeypatch.setattr(os, "fsync", flip)
  with pytest.raises(RunError, match=r"10 with .* were read back"):
    copy(original, target, 10)
  assert not target.exists()


def config_of(data_dir, stage_dir, name="cifar10"):
  config = byol_digits.get_config()
  config.data.name = name
  config.loader.data_dir = data_dir
  config.loader.stage_dir = stage_dir and str(stage_dir)
  return config


def test_a_staged_data_set_is_the_original(cifar10_dir, tmp_path):
  config = config_of(cifar10_dir, tmp_path / "stage")
  told = []
  assert stage.stage(config, distributed.Processes(), told.append)
  assert told[0].startswith("staging cifar10/3.0.2 from ")
  assert "every host has its copy" in told[-1]
  place = data_sets.place_of(config, "train")
  assert place.folder == os.path.join(cifar10_dir, "cifar10/3.0.2")
  for split in ("train", "test", "train[:5%]"):
    source = data_sets.open_split(config, split)
    whole = open_source("cifar10", split, cifar10_dir)
    assert (source.source.folder, whole.source.folder) == (
      place.copy,
      place.folder,
    )
    assert source.fingerprint == whole.fingerprint
    assert (len(source), source.class_names) == (len(whole), whole.class_names)
    for i in range(0, len(source), 5):
      assert source[i]["image"] == whole[i]["image"]
      assert source[i]["label"] == whole[i]["label"]
  # A copy that is no longer whole is not read.
  os.truncate(os.path.join(place.copy, min(place.shards)), 10)
  assert data_sets.open_split(config).source.folder == place.folder
  assert data_sets.open_split(config, "test").source.folder == place.copy


def photos(tmp_path, labels):
  """Prepares images as the split train, and no other; a config that has it."""
  listed = tmp_path / "photos.txt"
  lines = []
  for i, label in enumerate(labels):
    (tmp_path / f"{i}.jpg").write_bytes(jpeg(i))
    lines.append(f"{i}.jpg{label}\n")
  listed.write_text("".join(lines))
  byol_prepare(listed, tmp_path / "tfds", "--split=train", "--workers=1")
  return config_of(str(tmp_path / "tfds"), tmp_path / "stage", "photos")


def test_images_without_labels_need_no_split_to_evaluate_on(tmp_path):
  config, never = photos(tmp_path, [""] * 4), distributed.Processes()
  assert stage.stage(config, never, lambda line: None)
  source = data_sets.open_split(config)
  assert source.source.folder == data_sets.place_of(config, "train").copy
  network = types.SimpleNamespace(num_classes=source.num_classes)
  _, why = online.open_evaluation(config, network, None, never, pytest.fail)
  assert why == "none, because the images have no labels"


def test_a_split_to_evaluate_on_is_missed_before_the_copying(tmp_path):
  config = photos(tmp_path, ["\ta", "\tb"] * 2)
  with pytest.raises(UsageError, match=r"^evaluation\.split: photos has no sp"):
    stage.stage(config, distributed.Processes(), pytest.fail)
  config.evaluation.split = config.evaluation.bank_split
  assert stage.stage(config, distributed.Processes(), lambda line: None)
  config.evaluation.bank_split = "test"
  with pytest.raises(UsageError, match=r"^evaluation\.bank_split: photos has"):
    stage.stage(config, distributed.Processes(), pytest.fail)


def test_what_cannot_be_staged(tmp_path):
  with pytest.raises(UsageError, match="should be a local folder"):
    place_of("cifar10", ["train"], None, "gs://bucket/stage")
  with pytest.raises(UsageError, match="is a folder of images"):
    place_of("folder:/x", ["train"], None, str(tmp_path))
  assert place_of("digits", ["train"], None, str(tmp_path)) is None
  never = distributed.Processes()
  assert not stage.stage(config_of(None, None), never, pytest.fail)
  assert not stage.stage(
    config_of(None, tmp_path, "digits"), never, pytest.fail
  )


@pytest.mark.parametrize(
  ("given", "data_dir", "stage_dir", "expected"),
  [
    (0, "/data", None, 1),
    (0, "gs://bucket/tfds", None, 16),
    (3, "gs://bucket/tfds", None, 3),
    (0, "gs://bucket/tfds", "/dev/shm/byol", 1),
    (5, "/data", "/dev/shm/byol", 5),
  ],
)
def test_more_threads_read_from_a_bucket(given, data_dir, stage_dir, expected):
  config = config_of(data_dir, stage_dir)
  config.loader.num_threads = given
  assert data_sets.num_threads(config) == expected


def test_the_environment_may_name_the_bucket(monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", "gs://bucket/tfds")
  assert data_sets.num_threads(config_of(None, None)) == 16
  assert data_sets.num_threads(config_of(None, None, "folder:/x")) == 1
  assert data_sets.threads_for("cifar10", None, local=2) == 16
  assert data_sets.threads_for("voc:/x", None, local=2) == 2
  assert data_sets.threads_for("voc:5.0.0", None, local=2) == 16


def test_the_folder_of_tfds_may_lead_into_a_bucket(tmp_path, monkeypatch):
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  monkeypatch.setenv("HOME", str(tmp_path))
  mounts = f"my-bucket {tmp_path}/bucket fuse.gcsfuse rw 0 0\n"
  monkeypatch.setattr(buckets, "mounts", lambda: mounts)
  assert data_sets.num_threads(config_of(None, None)) == 1
  (tmp_path / "bucket").mkdir()
  (tmp_path / "tensorflow_datasets").symlink_to(tmp_path / "bucket")
  assert data_sets.num_threads(config_of(None, None)) == 16
