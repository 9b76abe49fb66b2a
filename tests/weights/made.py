"""Weights of a small network, as a file would hold them."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from byol_flax.models import byol
from byol_flax.weights import arrays, structure
from byol_flax.weights.foreign import Account, Foreign
from configs import byol as byol_config

HEAD = {"layers": 2, "hidden_size": 12, "output_size": 8}


def model_with(**encoder):
  """The section `model` of a config with small heads."""
  model = byol_config.get_config().model.to_dict()
  for head in ("projector", "predictor"):
    model[head] |= HEAD
  return model | {"encoder": model["encoder"] | encoder}


SMALL = model_with(
  architecture="basic:1-1:8-12:4", stem="small", shortcut="identity"
)


def shapes_of(model, num_classes=3):
  """Shapes of the variables of a whole network, traced once for equal ones."""
  return _shapes_of(json.dumps(model, sort_keys=True), num_classes)


@functools.cache
def _shapes_of(model, num_classes):
  model = json.loads(model)
  network = byol.make_network(
    **model, num_classes=num_classes, dtype=jnp.float32
  )
  images = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), jnp.uint8)
  return jax.eval_shape(
    functools.partial(network.init, train=True), jax.random.key(0), images
  )


def variables_of(model, seed=0, num_classes=3):
  """Random variables of a whole network, BatchNorm's averages too, in NumPy."""
  shapes = shapes_of(model, num_classes)
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    if name == "count":
      return np.array(7, leaf.dtype)
    if name in ("scale", "variance"):
      return rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
    scale = 1 / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
    return (scale * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def stored(tree):
  return jax.tree.map(arrays.Stored.of, tree)


def weights(model=SMALL, *, modules=None, momentum=True):
  """Weights of both networks; with `modules`, those of the online one only."""
  online = variables_of(model, 0)
  if modules:
    online = {
      part: {name: tree[name] for name in modules if name in tree}
      for part, tree in online.items()
    }
  networks = {"online": online}
  if not modules:
    networks["target"] = variables_of(model, 1)
  moved = variables_of(model, 2)["params"]
  return foreign(
    stored(networks),
    model,
    momentum=stored(moved) if momentum and not modules else None,
  )


def without_values(model):
  """An encoder of which only the shapes are there."""
  shapes = jax.tree.map(
    lambda x: arrays.Stored(x.shape, x.dtype, refuse), shapes_of(model)
  )
  online = {part: {"encoder": shapes[part]["encoder"]} for part in shapes}
  return foreign({"online": online}, model)


def refuse():
  raise AssertionError("an array was read")


def foreign(networks, model, momentum=None):
  """Weights as a file would hold them; what `model` says fits them."""
  found = structure.model_of(
    networks["online"]["params"],
    padding=model["encoder"]["padding"],
    **model["batch_norm"],
  )
  return Foreign(
    format="made",
    networks=networks,
    momentum=momentum,
    step=41,
    model=found,
    image_size=16,
    crop_ratio=0.875,
    account=Account(matched=0, ignored={}),
    details={"from": "a test"},
  )
