"""What a run reads, by its config: finished views, crops, or draws alone."""

import contextlib
import dataclasses
import math
import os
import pathlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.pretrain import places
from byol_flax.pretrain.places import AugmentConfig, Place
from byol_flax.runs import data_sets
from byol_flax.slices import GIB
from input_pipeline import augment, loading, pipeline, resident, scaled, sources
from input_pipeline.errors import UsageError
from input_pipeline.unreadable import UnreadableImages

# Share of a device's memory that images may take; the rest is for training.
_MOST_OF_MEMORY = 0.5


@dataclasses.dataclass(frozen=True)
class Inputs:
  """Where the batches of a run come from.

  Attributes:
    stream: endless examples, ready to be batched.
    how: who makes the batches of this process.
    rows: how many rows of a batch this process reads.
    images: uint8 [N, H, W, 3] that shall lie on the devices, or None.
    place: where the views are made.
  """

  stream: Any
  how: loading.Loading
  rows: int
  images: np.ndarray | None
  place: Place

  @property
  def resident(self) -> tuple[int, ...] | None:
    """Shape of `images`."""
    return None if self.images is None else self.images.shape

  def open_batches(
    self, start_step: int, unreadable: UnreadableImages
  ) -> loading.Batches:
    """The batches of this process from update `start_step` on; to be closed."""
    return pipeline.train_iterator(
      self.stream,
      self.how,
      rows=self.rows,
      start_step=start_step,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      unreadable=unreadable,
    )

  def put_images(self, mesh: Mesh) -> dict[str, jax.Array]:
    """What every batch has in common."""
    if self.images is None:
      return {}
    return {"images": sharding.put_everywhere(mesh, self.images)}

  def advice(self) -> str:
    """What to try when the devices wait for data; one sentence or two."""
    if self.place is Place.RESIDENT:
      return (
        "One thread draws far more views than the devices take, so they wait "
        "for the trainer's own work between two updates; a larger batch_size "
        "means fewer updates."
      )
    cores = loading.available_cores()
    if self.how.num_workers < cores:
      return (
        f"--config.loader.num_workers={cores} would use all cores of this "
        "machine."
      )
    if self.place is Place.HOST:
      return (
        "All cores are at work; --config.augment.device=accelerator leaves "
        "colours and blur to the devices."
      )
    return (
      "All cores are at work; `byol benchmark input` tells which stage takes "
      "longest."
    )


def make_two_views(settings: AugmentConfig) -> augment.TwoViews:
  """Makes whole views on the host, wherever `settings` has them made."""
  return augment.TwoViews(**_views(settings))


def make_two_draws(settings: AugmentConfig) -> augment.TwoDraws:
  """Makes only the draws that `settings` asks for."""
  return augment.TwoDraws(**_views(settings))


def make_transform(
  settings: AugmentConfig,
) -> augment.TwoViews | augment.TwoCrops:
  """What the host does to an image that does not lie on the devices."""
  if places.place_of(settings) is Place.HOST:
    return make_two_views(settings)
  return augment.TwoCrops(**_views(settings))


def _views(settings: AugmentConfig) -> dict[str, Any]:
  return {
    "size": settings.size,
    "view1": augment.View(**settings.view1),
    "view2": augment.View(**settings.view2),
  }


def on_sizes(
  settings: AugmentConfig, source: sources.ReadableSource
) -> tuple[str, ...]:
  """What to do about images far larger than the views, if they are."""
  decoded_once = places.place_of(settings) is Place.RESIDENT
  if settings.scaled_decoding or decoded_once:
    return ()
  return tuple(filter(None, [scaled.advice(source, make_two_views(settings))]))


def open_inputs(
  config: Any, source: sources.ReadableSource, mesh: Mesh
) -> Inputs:
  """Opens what `config` asks for; reads all images if they shall be resident.

  Raises:
    UsageError: images that the devices cannot hold, or settings that
      contradict each other.
  """
  place = places.place_of(config.augment)
  images = None
  workers = config.loader.num_workers, data_sets.num_threads(config)
  stream: Any
  if place is Place.RESIDENT:
    room = _room_of(mesh)
    whole = resident.load(source, lambda shape: check_room(shape, room))
    images = whole.images
    draws = make_two_draws(config.augment)
    stream = resident.DrawStream(whole, draws, config.seed)
    row_bytes = draws.row_bytes
    workers = 0, 1  # workers take longer to start and ask than to draw here
  else:
    transform = make_transform(config.augment)
    row_bytes = transform.row_bytes
    stream = pipeline.view_stream(
      source,
      transform,
      config.seed,
      scaled_decoding=config.augment.scaled_decoding,
    )
  rows = config.batch_size // jax.process_count()
  return Inputs(
    stream=stream,
    how=loading.choose_loading(
      num_workers=workers[0],
      num_threads=workers[1],
      rows=rows,
      row_bytes=row_bytes,
    ),
    rows=rows,
    images=images,
    place=place,
  )


def _room_of(mesh: Mesh) -> int:
  """Bytes of memory of a device, or of the host where it has less."""
  statistics = mesh.local_devices[0].memory_stats() or {}
  host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  with contextlib.suppress(OSError, ValueError):  # no container, or "max"
    limit = pathlib.Path("/sys/fs/cgroup/memory.max").read_text()
    host = min(host, int(limit))
  # CPU devices do not tell a limit, and the host must hold the images too.
  return min(host, statistics.get("bytes_limit", host))


def check_room(shape: tuple[int, ...], room: int) -> None:
  """Checks that images of `shape` leave enough of `room` bytes for training.

  Raises:
    UsageError: they leave too little.
  """
  needed = math.prod(shape)
  if needed > _MOST_OF_MEMORY * room:
    raise UsageError(
      f"augment.cache=device needs at least {needed / GIB:.1f} GiB on every "
      f"device and on the host for {shape[0]:,} images, all padded to "
      f"{shape[1]} × {shape[2]}. There are {room / GIB:.1f} GiB, of which "
      f"images may take {_MOST_OF_MEMORY:.0%}. Leave the images on the host: "
      "--config.augment.cache=none --config.augment.device=accelerator"
    )
