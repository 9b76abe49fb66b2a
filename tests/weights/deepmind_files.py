"""Checkpoints as BYOL's authors saved them, written piece by piece.

No Haiku, dill or old JAX is needed: what they write is put together by hand, in
the styles of their years.
"""

import dataclasses
import re
import struct
from collections.abc import Callable, Iterator

import numpy as np

from byol_flax.weights import arrays
from tests.weights.opcodes import STOP, call, line, stack_name, text

_PIECE = 1 << 22  # bytes
FIELDS = {
  "_ByolExperimentState": (
    "online_params",
    "target_params",
    "online_state",
    "target_state",
    "opt_state",
  ),
  "AddWeightDecayState": (),
  "ScaleByLarsState": ("mu",),
  "ScaleState": (),
  "EmptyState": (),
}


@dataclasses.dataclass(frozen=True)
class Style:
  """What the libraries of a year write.

  Attributes:
    protocol: 2 or 4.
    core: NumPy's module with `_reconstruct`.
    mapping: Haiku's class, or None for dicts.
    dill: module of dill, or None where classes are named by module.
    wraps: whether dill wraps arrays, too.
    looks_up: whether dill writes functions of C modules as attributes.
    last: module and name of the optimizer's last state.
  """

  protocol: int = 2
  core: str = "numpy.core.multiarray"
  mapping: str | None = "FlatMapping"
  dill: str | None = "dill._dill"
  wraps: bool = True
  looks_up: bool = False
  last: tuple[str, str] = ("optax._src.transform", "ScaleState")


STYLES = {
  "2020, dill 0.3.2": Style(
    core="numpy.core._multiarray_umath",
    mapping="frozendict",
    wraps=False,
    looks_up=True,
    last=("optax.transform", "ScaleState"),
  ),
  "2020": Style(mapping="frozendict", last=("optax.transform", "ScaleState")),
  "2020, old dill": Style(mapping="frozendict", dill="dill.dill"),
  "2021": Style(),
  "by module": Style(dill=None, wraps=False),
  "by module, 2020": Style(
    mapping="frozendict",
    dill=None,
    wraps=False,
    last=("optax.transform", "ScaleState"),
  ),
  "new": Style(
    core="numpy._core.multiarray",
    mapping=None,
    last=("optax._src.base", "EmptyState"),
  ),
  "protocol 4": Style(protocol=4),
  "protocol 4, by module": Style(
    protocol=4,
    mapping=None,
    dill=None,
    wraps=False,
    last=("optax._src.base", "EmptyState"),
  ),
}


@dataclasses.dataclass(frozen=True)
class Lazy:
  """An array [shape] of float32 that is drawn while it is written."""

  shape: tuple[int, ...]
  pieces: Callable[[], Iterator[bytes]]


def write(path, networks, momentum, step, style=STYLES["2021"]):
  """Writes a checkpoint; an array that stands twice is written once.

  Args:
    path: of the file.
    networks: {"online", "target": {"params", "state"}} of {module: {leaf:
      array}}.
    momentum: as "params" of a network.
    step: as the file tells it.
    style: of the libraries that are imitated.
  """
  memo: dict[int, int] = {}
  content = {}
  for name, network in networks.items():
    content[f"{name}_params"] = network["params"]
    content[f"{name}_state"] = network["state"]
  with open(path, "wb") as file:
    file.write(b"\x80" + bytes([style.protocol]) + b"}(")
    file.write(text("experiment_state"))
    file.write(_class(style, "byol.byol_experiment", "_ByolExperimentState"))
    file.write(b"(")
    for field in FIELDS["_ByolExperimentState"][:4]:
      file.writelines(_mapping(style, content.get(field, {}), memo))
    optimizers = "byol.utils.optimizers"
    file.write(_class(style, optimizers, "AddWeightDecayState") + b")\x81")
    file.write(_class(style, optimizers, "ScaleByLarsState"))
    file.writelines(_mapping(style, momentum, memo))
    file.write(b"\x85\x81" + _class(style, *style.last) + b")\x81")
    file.write(b"\x87t\x81" + text("step") + b"J" + struct.pack("<i", step))
    file.write(text("rng"))
    file.writelines(_array(style, np.arange(2, dtype=np.uint32), {}))
    file.write(b"u" + STOP)


def _name(style, module, name):
  return (stack_name if style.protocol == 4 else line)(module, name)


def _function(style, module, name):
  """A function of a C module."""
  if not style.looks_up:
    return _name(style, module, name)
  found = call(_name(style, style.dill, "_import_module"), text(module))
  return call(_name(style, style.dill, "_get_attr"), found, text(name))


def _class(style, module, name):
  if style.dill is None:
    return _name(style, module, name)
  fields = b"(" + b"".join(map(text, FIELDS[name])) + b"t"
  create = _name(style, style.dill, "_create_namedtuple")
  return call(create, text(name), fields, text(module))


def _mapping(style, modules, memo):
  """Two levels of a mapping, and the arrays in it."""
  begin, end = b"}(", b"u"
  if style.mapping:
    function = _name(style, "haiku._src.data_structures", style.mapping)
    begin, end = function + begin, end + b"\x85R"
  yield begin
  for module, leaves in modules.items():
    yield text(module) + begin
    for leaf, array in leaves.items():
      yield text(leaf)
      yield from _array(style, array, memo)
    yield end
  yield end


def _array(style, array, memo):
  if id(array) in memo:
    yield b"j" + struct.pack("<I", memo[id(array)])
    return
  encode = _function(style, "_codecs", "encode")
  no_bytes = call(encode, text("b"), text("latin1"))
  shell = _function(style, style.core, "_reconstruct")
  arguments = _name(style, "numpy", "ndarray") + b"K\0\x85" + no_bytes + b"\x87"
  yield (
    _name(style, style.dill, "_create_array") + b"(" + shell + arguments
    if style.wraps
    else shell + arguments + b"R"
  )
  if isinstance(array, Lazy):
    pieces, dtype = array.pieces, np.dtype(np.float32)
  else:
    pieces, dtype = lambda: [array.tobytes()], array.dtype
  shape = b"".join(b"J" + struct.pack("<i", size) for size in array.shape)
  code = call(_name(style, "numpy", "dtype"), text(dtype.str[1:]), b"\x89\x88")
  last = b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
  yield b"(K\1(" + shape + b"t" + code + b"(K\3" + text("<") + b"NNN" + last
  yield b"\x89"
  size = int(np.prod(array.shape)) * dtype.itemsize
  if style.protocol == 4:
    yield b"\x8e" + struct.pack("<Q", size)
    yield from pieces()
  else:
    length = sum(len(_as_text(piece)) for piece in pieces())
    yield encode + b"(X" + struct.pack("<I", length)
    yield from map(_as_text, pieces())
    yield text("latin1") + b"tR"
  yield b"t" + (b"NtR" if style.wraps else b"b")
  memo[id(array)] = len(memo)
  yield b"r" + struct.pack("<I", memo[id(array)])


def _as_text(piece):
  return piece.decode("latin-1").encode()


def haiku_trees(variables):
  """Our "params" and "batch_stats" as the authors would name and shape them."""
  params: dict = {}
  for path, array in arrays.flat(variables["params"]):
    module, leaf = _haiku_name(path)
    params.setdefault(module, {})[leaf] = _as_haiku(module, array)
  state: dict = {}
  for path, array in arrays.flat(variables["batch_stats"]):
    module, leaf = _haiku_name(path)
    for statistic in ("mean_ema", "var_ema"):
      values = state.setdefault(f"{module}/~/{statistic}", {})
      if leaf == "count":
        values["counter"] = array
      elif statistic.startswith(leaf[:3]):
        values["average"] = values["hidden"] = _as_haiku(module, array)
  return {"params": params, "state": state}


def _haiku_name(path):
  """("encoder/group0_block1/conv2/kernel") -> its module and leaf."""
  module, _, leaf = path.rpartition("/")
  leaf = {"kernel": "w", "bias": "b"}.get(leaf, leaf)
  head, _, layer = module.partition("/")
  if head == "encoder":
    layer = re.sub(r"^stem_norm$", "initial_batchnorm", layer)
    layer = re.sub(r"^stem_conv$", "initial_conv", layer)
    layer = re.sub(r"(conv|norm)(\d+)$", r"\1_\2", layer)
    layer = re.sub(r"/(shortcut_)?norm", r"/\1batchnorm", layer)
    block = r"^group(\d+)_block(\d+)/"
    layer = re.sub(block, r"block_group_\1/~/block_\2/~/", layer)
    return f"res_net50/~/{layer}", leaf
  layer = re.sub(r"(linear|norm)(\d+)$", r"\1_\2", layer)
  layer = layer.removesuffix("_0").replace("norm", "batch_norm")
  return f"{head}/{layer}".removesuffix("/"), leaf


def _as_haiku(module, array):
  if "norm" not in module:
    return array
  ones = (1, 1, 1) if "/~/" in module else (1,)
  if isinstance(array, Lazy):
    return dataclasses.replace(array, shape=(*ones, *array.shape))
  return array.reshape(*ones, -1)
