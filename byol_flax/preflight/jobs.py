"""An evaluation without data and without arrays, and one of its programs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.benchmarks import input_stages
from byol_flax.evaluation import features
from byol_flax.evaluation.encoder import Encoder
from input_pipeline import augment, sources


@dataclasses.dataclass(frozen=True)
class Count:
  """A split of which only the number of images is known."""

  split: str
  images: int

  def __len__(self) -> int:
    return self.images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
  """The data of an evaluation.

  Attributes:
    name: for people.
    counts: key of the config, such as "train_split" -> images of that split.
    num_classes: K.
    source: images to measure with how fast a core prepares them.
    transforms: how they are prepared; the slowest one counts.
    measured_on: which images those are.
  """

  name: str
  counts: Mapping[str, Count]
  num_classes: int
  source: sources.Source
  transforms: Sequence[input_stages.Drawn | augment.EvalCrop]
  measured_on: str


@dataclasses.dataclass(frozen=True)
class Job:
  """An evaluation on a mesh, without data and without arrays.

  Attributes:
    config: of the evaluation.
    encoder: shapes stand for its variables.
    mesh: where it runs.
    counts: key of the config, such as "train_split" -> images of that split.
    num_classes: K.
  """

  config: Any
  encoder: Encoder
  mesh: Mesh
  counts: Mapping[str, Count]
  num_classes: int

  def calls(self, *names: str) -> int:
    """In how many batches the splits are read that these keys name."""
    size = features.shared_size(self.config.batch_size, self.mesh)
    counts = (len(self.counts[name]) for name in names if name in self.counts)
    return sum(-(-count // size) for count in counts)

  def cut(self, kind: Any, *shape: int) -> jax.ShapeDtypeStruct:
    """An array that is cut among the devices along its first axis."""
    return jax.ShapeDtypeStruct(shape, kind, sharding=sharding.split(self.mesh))

  def whole(self, tree: Any) -> Any:
    """Arrays of these shapes that are whole on every device."""
    where = sharding.replicated(self.mesh)
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree
    )

  @property
  def images(self) -> jax.ShapeDtypeStruct:
    """Images of a batch that is read for features or guesses."""
    size = features.shared_size(self.config.batch_size, self.mesh)
    return self.cut(jnp.uint8, size, *[self.encoder.crop.size] * 2, 3)

  @property
  def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch to train on."""
    size = self.config.batch_size
    side = self.encoder.crop.size
    label = self.cut(jnp.int32, size)
    if self.several:
      label = self.cut(jnp.int8, size, self.num_classes)
    return {"image": self.cut(jnp.uint8, size, side, side, 3), "label": label}

  @property
  def several(self) -> bool:
    """Whether an image may have several classes, as in VOC2007."""
    return "metric" in self.config and self.config.metric == "map11"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """A program of an evaluation.

  Attributes:
    name: of what it does.
    function: jitted.
    arguments: shapes and shardings of what it is given.
    static: its static arguments.
    calls: how often it runs; 0 if nobody knows.
    beside: what else lies on the devices meanwhile.
    loops: as in `hlo.cycles`.
  """

  name: str
  function: Any
  arguments: tuple[Any, ...]
  static: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  calls: int
  beside: Any = ()
  loops: int = 1
