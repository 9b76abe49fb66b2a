"""Training batches with masks and depth, from folders, are the same for all."""

import numpy as np
import pytest
from PIL import Image

from input_pipeline import dense_sources, loading, pipeline, sources
from input_pipeline.dense_classes import CentreCrop, ScaledCrop
from input_pipeline.unreadable import UnreadableImages
from tests.input_pipeline.test_bucketed import digest
from tests.input_pipeline.voc_folders import (
  HEIGHT,
  WIDTH,
  png,
  write_bytes,
  write_image,
  write_list,
)

BATCH, IMAGES = 6, 10


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  root = tmp_path_factory.mktemp("voc")
  names = [f"{k}" for k in range(IMAGES)]
  for k, name in enumerate(names):
    write_image(root, f"{name}.jpg", seed=k)
    classes = np.full((HEIGHT, WIDTH), k, np.uint8)
    mask = png(Image.fromarray(classes))
    write_bytes(root, f"SegmentationClass/{name}.png", mask)
  write_list(root, "Segmentation", "train", names)
  return dense_sources.open_classes(f"voc:{root}", "train")


def batches_of(source, updates, *, start=0, processes=1, workers=0, chunk=1):
  crop = ScaledCrop(size=33, scales=(0.5, 2.0), flip_probability=0.5)
  readable = sources.ReadableSource(source)
  rows = BATCH // processes
  parts = []
  for process in range(processes):
    stream = pipeline.example_stream(readable, seed=7)
    batches = pipeline.train_iterator(
      stream.random_map(crop, seed=8),
      loading.Loading(
        num_workers=workers,
        num_threads=2,
        chunk_rows=chunk,
        row_bytes=crop.row_bytes,
      ),
      rows=rows,
      start_step=start,
      process_index=process,
      process_count=processes,
      unreadable=UnreadableImages(readable, "/dev/null", 1),
    )
    parts.append([next(batches) for _ in range(updates)])
    batches.close()
  return [
    sum(digest(b, p * rows) for p, b in enumerate(update)) % 2**64
    for update in zip(*parts, strict=True)
  ], parts


def test_batches_do_not_depend_on_chunks_processes_or_restarts(source):
  whole, ((first, *_),) = batches_of(source, 5)
  assert first.keys() == {"image", "classes"}
  assert first["image"].shape == (BATCH, 33, 33, 3)
  assert len(set(whole)) == 5
  assert batches_of(source, 5, chunk=2)[0] == whole
  assert batches_of(source, 5, processes=3)[0] == whole
  assert batches_of(source, 2, start=3)[0] == whole[3:]


@pytest.mark.slow
def test_batches_do_not_depend_on_workers(source):
  whole, _ = batches_of(source, 4)
  assert batches_of(source, 2, start=2, workers=2)[0] == whole[2:]


def test_an_evaluation_reads_every_mask_once(source):
  reader = pipeline.EvalReader(
    transform=CentreCrop(height=48, width=64),
    batch_size=4,
    num_workers=0,
    num_threads=1,
    process_index=0,
    process_count=1,
  )
  seen = []
  for batch in reader.read(source):
    assert batch["image"].shape == (4, 48, 64, 3)
    for row in np.flatnonzero(batch["mask"]):
      values, counts = np.unique(batch["classes"][row], return_counts=True)
      assert counts[0] == HEIGHT * WIDTH
      seen.append(int(values[0]))
    assert (batch["classes"][~batch["mask"]] == 255).all()
  assert seen == [*range(IMAGES)]
