"""Checks that a split can be trained on as a config asks."""

from typing import Protocol

from jax.sharding import Mesh

from input_pipeline.errors import UsageError


class Split(Protocol):
  """A number of images under a name, such as a `sources.Source`."""

  @property
  def split(self) -> str:
    """The name."""

  def __len__(self) -> int:
    """Number of images N."""


def total_steps(epochs: float, train: Split, batch_size: int) -> int:
  """Updates of so many epochs."""
  return int(epochs * len(train) / batch_size)


def check_batch(batch_size: int, train: Split, mesh: Mesh) -> None:
  """Raises UsageError for mistakes that would show only during a training."""
  if batch_size > len(train):
    raise UsageError(
      f"batch_size is {batch_size}, more than the {len(train)} images of "
      f"{train.split}; give a smaller one."
    )
  if batch_size % mesh.size:
    below = batch_size // mesh.size * mesh.size
    near = [str(size) for size in (below, below + mesh.size) if size]
    raise UsageError(
      f"batch_size {batch_size} must be a multiple of {mesh.size}, such as "
      f"{' or '.join(near)}, to be shared by the devices."
    )


def check_epochs(epochs: float, train: Split, batch_size: int) -> None:
  """Raises UsageError unless so many epochs are an update at least."""
  if not total_steps(epochs, train, batch_size):
    raise UsageError(
      f"{epochs:g} epochs of {len(train)} images in batches of {batch_size} "
      "are 0 updates; take more epochs."
    )
