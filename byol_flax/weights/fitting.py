"""Checks that what a file holds are all arrays of a network, and no others."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from byol_flax.models import byol
from byol_flax.weights import arrays
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Foreign
from input_pipeline.errors import UsageError

_SHOWN = 3  # names in a message
_HEADS = ("projector", "predictor")


def check(found: Foreign, called: Callable[[str], str] = str) -> None:
  """Raises WeightsError unless every array has its place, shape and kind.

  No array is read.

  Args:
    found: the weights.
    called: path such as "online/params/encoder/stem_conv/kernel" -> what a
      message calls that array.
  """
  trees = [*found.networks.items(), ("momentum", found.momentum or {})]
  for name, tree in trees:
    for path, leaf in arrays.flat(tree, f"{name}/"):
      kind = "i" if path.endswith("/count") else "f"
      if leaf.dtype.kind != kind:
        raise WeightsError(
          f"Its {called(path)} is {leaf.dtype}; expected "
          f"{'whole numbers' if kind == 'i' else 'floating numbers'}."
        )
  for name, network in found.networks.items():
    expected = shapes_of(found.model, network)
    _compare(network, expected, lambda path: called(f"{name}/{path}"))  # noqa: B023
  if found.momentum is not None:
    online = found.networks["online"]["params"]
    shapes = {path: leaf.shape for path, leaf in arrays.flat(online)}
    _compare(
      found.momentum,
      arrays.nested(shapes),
      lambda path: called(f"momentum/{path}"),
    )


def shapes_of(
  model: Mapping[str, Any], network: Mapping[str, arrays.Tree]
) -> dict[str, Any]:
  """Shapes of the modules that a network has, as `model` describes them.

  Args:
    model: as `Foreign.model` has it.
    network: "params" and "batch_stats" of some modules of a network.

  Returns:
    "params" and "batch_stats" with shapes as leaves.
  """
  modules = network["params"].keys() | network["batch_stats"].keys()
  classifier = network["params"].get("classifier", {})
  kernel = classifier.get("kernel") if isinstance(classifier, Mapping) else None
  classes = kernel.shape[-1] if kernel is not None and kernel.shape else 1
  # A head that is absent is given the smallest size, and not looked at.
  sizes = [model[name]["output_size"] for name in _HEADS if name in model]
  absent = {
    "layers": 1,
    "hidden_size": 1,
    "output_size": sizes[0] if sizes else 1,
    "final_bias": False,
    "final_norm": False,
  }
  heads = {name: {**absent, **model.get(name, {})} for name in _HEADS}
  settings = {"initializer": "fan_in", **model, **heads}
  try:
    whole = _whole(json.dumps(settings, sort_keys=True), classes)
  except UsageError as error:
    raise WeightsError(f"It holds no network of this kind: {error}") from None
  return {
    collection: {
      module: jax.tree.map(lambda x: x.shape, dict(tree))
      for module, tree in whole[collection].items()
      if module in modules
    }
    for collection in ("params", "batch_stats")
  }


@functools.lru_cache(maxsize=4)
def _whole(settings: str, classes: int) -> Mapping[str, Any]:
  """What a network holds; the target and the proof of an import ask again.

  To trace ResNet-200 takes longer than a second.
  """
  made = byol.make_network(
    **json.loads(settings), num_classes=classes, dtype=jnp.float32
  )
  images = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), jnp.uint8)
  whole: Mapping[str, Any] = jax.eval_shape(
    functools.partial(made.init, train=False), jax.random.key(0), images
  )
  return whole


def _compare(
  found: arrays.Tree,
  expected: Mapping[str, Any],
  called: Callable[[str], str],
) -> None:
  """Raises WeightsError if names or shapes differ; it names the first."""
  there = {path: leaf.shape for path, leaf in arrays.flat(found)}
  wanted = dict(arrays.flat(expected))
  problems = list(_problems(there, wanted, called))
  if problems:
    more = len(problems) - _SHOWN
    named = "; ".join(problems[:_SHOWN])
    raise WeightsError(
      f"It does not fit the network that it should hold: {named}"
      f"{f'; and {more} more' if more > 0 else ''}."
    )


def _problems(
  there: Mapping[str, tuple[int, ...]],
  wanted: Mapping[str, tuple[int, ...]],
  called: Callable[[str], str],
) -> Iterator[str]:
  for path in sorted(there.keys() | wanted.keys()):
    if path not in there:
      yield f"{called(path)} {list(wanted[path])} is missing"
    elif path not in wanted:
      yield f"{called(path)} {list(there[path])} is left over"
    elif there[path] != wanted[path]:
      shapes = f"{list(there[path])}, expected {list(wanted[path])}"
      yield f"{called(path)} is {shapes}"
