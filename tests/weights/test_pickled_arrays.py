"""Arrays in pickles are those that NumPy wrote, or are refused."""

import io
import pickle

import numpy as np
import pytest

from byol_flax.weights import pickle_machine, pickled_arrays, pickled_records
from byol_flax.weights.errors import WeightsError
from tests.weights.opcodes import STOP, call, line, text


def load(pickled):
  """The object of a pickle; its arrays read themselves from it."""
  tables = pickled_arrays.admitted(lambda: io.BytesIO(pickled))
  tables = {**tables, **pickled_records.admitted()}
  return pickle_machine.load(io.BytesIO(pickled), admitted=tables)


def array_of(pickled):
  stored = pickled_arrays.stored_in(load(pickled))
  array = stored.load()
  assert (array.shape, array.dtype) == (stored.shape, stored.dtype)
  assert array.flags.c_contiguous
  assert array.dtype.isnative
  return array


RNG = np.random.default_rng(0)
ARRAYS = {
  "small": RNG.normal(size=(3, 2)).astype(np.float32),
  "large": RNG.normal(size=(50, 40)),
  "fortran": np.asfortranarray(RNG.normal(size=(50, 40))),
  "transposed": RNG.normal(size=(5, 6, 7)).transpose(2, 0, 1),
  "big endian": RNG.integers(0, 1 << 30, 500).astype(">i4"),
  "half": RNG.normal(size=999).astype(np.float16),
  "bool": RNG.normal(size=2000) > 0,
  "all bytes": np.arange(256 * 8, dtype=np.uint8),
  "no dimension": np.array(3, np.int64),
  "empty": np.zeros((0, 3), np.float32),
  "scalar": np.float32(0.5),
}


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_read(name, protocol):
  pickled = pickle.dumps(ARRAYS[name], protocol)
  np.testing.assert_array_equal(array_of(pickled), ARRAYS[name])


def test_old_modules_of_numpy_are_known():
  pickled = pickle.dumps(ARRAYS["large"], 2)
  assert b"numpy._core.multiarray" in pickled
  old = pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
  np.testing.assert_array_equal(array_of(old), ARRAYS["large"])


DTYPE = call(line("numpy", "dtype"), text("f4"), b"\x89\x88")
NATIVE = (
  DTYPE + b"(K\3" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
)
SHELL = line("numpy.core.multiarray", "_reconstruct")
NDARRAY = line("numpy", "ndarray")
EMPTY = call(SHELL, NDARRAY, b"K\0\x85", b"C\1b")


def state(
  shape=b"K\2\x85", dtype=NATIVE, fortran=b"\x89", content=b"C\x08" + b"\0" * 8
):
  """The arguments of an array's BUILD."""
  return b"(K\1" + shape + dtype + fortran + content + b"t"


def wrapped(module, name, more=b"N"):
  """An array as JAX and dill write it: made and restated in one call."""
  shell = SHELL, NDARRAY + b"K\0\x85C\1b\x87"
  return call(line(module, name), *shell, state(), more)


@pytest.mark.parametrize(
  "pickled",
  [
    EMPTY + state() + b"b",
    wrapped("dill._dill", "_create_array"),
    wrapped("dill.dill", "_create_array"),
    wrapped("jax._src.array", "_reconstruct_array", b"}"),
    wrapped("jax._src.device_array", "reconstruct_device_array", b"}"),
  ],
)
def test_arrays_that_are_wrapped_are_read(pickled):
  zeros = np.zeros(2, np.float32)
  np.testing.assert_array_equal(array_of(pickled + STOP), zeros)


@pytest.mark.parametrize(
  "axes",
  [
    2 * (b"]" * 5000 + b"a" * 4999) + b"\x86",
    text("a") + b"K\0\x86",
    b"\x88\x89\x86",  # True, False
    b"K\1K\1\x86",
    b"K\1\x85",
    b"N",
  ],
  ids=("deep", "text", "bools", "twice", "few", "none"),
)
def test_axes_that_are_none_are_refused(axes):
  frombuffer = line("numpy.core.numeric", "_frombuffer")
  content = b"C\x08" + b"\0" * 8
  given = content + NATIVE + b"K\1K\2\x86" + text("K") + axes
  with pytest.raises(WeightsError, match="axes in an unknown order"):
    load(frombuffer + b"(" + given + b"tR" + STOP)


LONG = b"B\xd0\x07\0\0" + b"\0" * 2000
LIES = {  # the array, and what is said of it
  "shape": (state(shape=b"K\3\x85"), r"shape \[3\].* 12 bytes.* of 8 bytes"),
  "huge shape": (state(shape=b"J\xff\xff\xff\x7f\x85"), "content of 8 bytes"),
  "product": (
    state(shape=b"(" + 4 * (b"\x8a\x08" + b"\xff" * 7 + b"\x7f") + b"t"),
    "content of 8 bytes",
  ),
  "negative": (state(shape=b"J\xff\xff\xff\xff\x85"), "no list of sizes"),
  "fraction": (state(shape=b"G" + b"\0" * 8 + b"\x85"), "no list of sizes"),
  "dimensions": (state(shape=b"(" + 9 * b"K\1" + b"t"), "no list of sizes"),
  "long": (state(content=LONG), "content of 2000 bytes"),
  "text": (state(content=text("€" * 8)), "spelled wrongly"),
  "list": (state(content=b"]"), "content is not bytes"),
  "no dtype": (state(dtype=text("f4")), "state is not NumPy's"),
  "no state": (b"N", "state is not NumPy's"),
}


@pytest.mark.parametrize("name", LIES)
def test_arrays_that_lie_are_refused(name):
  pickled, said = LIES[name]
  with pytest.raises(WeightsError, match=said):
    load(EMPTY + pickled + b"b.")


@pytest.mark.parametrize("count", [1999, 2001])
def test_long_texts_of_another_length_are_refused_when_read(count):
  content = text(count * "a")
  shape = b"M\xf4\1\x85"  # 500 of 4 bytes
  if count < 2000:
    with pytest.raises(WeightsError, match="content of 1999 bytes"):
      load(EMPTY + state(shape, content=content) + b"b.")
  else:
    array = load(EMPTY + state(shape, content=content) + b"b.")
    with pytest.raises(WeightsError, match="content of another length"):
      array.stored.load()


def test_long_texts_of_other_characters_are_refused_when_read():
  shape = b"M\xf4\1\x85"
  array = load(EMPTY + state(shape, content=text("€" * 1000)) + b"b.")
  with pytest.raises(WeightsError, match="spelled wrongly"):
    array.stored.load()


@pytest.mark.parametrize(
  ("value", "said"),
  [
    (np.array([{}, "text"], object), "array of type O8"),
    (np.array(["text"]), "array of type U4"),
    (np.array(["2020"], "datetime64[Y]"), "array of type M8"),
    (np.zeros(2, np.complex64), "array of type c8"),
    (np.zeros(2, [("a", "f4")]), "array of type V4"),
    (np.zeros(2, np.longdouble), "array of type f16"),
    (np.ma.zeros(2), "numpy.ma"),
    (np.zeros(2).view(np.matrix), "numpy.matrix|numpy.*matrix"),
  ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_other_arrays_are_refused_by_their_type(value, said, protocol):
  with pytest.raises(WeightsError, match=said):
    load(pickle.dumps(value, protocol))


@pytest.mark.parametrize(
  "size", [b"\x8a\xff" + b"\x7f" * 255, b"I" + b"9" * 4000 + b"\n"]
)
def test_sizes_of_thousands_of_digits_are_refused(size):
  """Python does not print their product."""
  lie = call(SHELL, NDARRAY, b"K\0\x85", b"C\1b") + state(
    b"(" + size * 8 + b"t"
  )
  with pytest.raises(WeightsError, match=r"integer of 255|number of 4000"):
    load(b"\x80\2" + lie + b"b" + STOP)


def test_calls_within_arrays_do_not_nest():
  create = line("dill._dill", "_create_array")
  inner = SHELL + NDARRAY + b"K\0\x85C\1b\x87"
  pickled = state() + b"q\1" + create + b"q\0"
  pickled += 5000 * b"h\0" + inner + b"h\1\x87" + 5000 * b"h\1\x87" + b"R"
  with pytest.raises(WeightsError, match="_reconstruct did not make"):
    load(pickled + STOP)


CLASSES = {
  ("byol.byol_experiment", "_ByolExperimentState"): 5,
  ("byol.utils.optimizers", "ScaleByLarsState"): 1,
  ("byol.utils.optimizers", "AddWeightDecayState"): 0,
  ("optax._src.transform", "ScaleState"): 0,
  ("optax.transform", "ScaleState"): 0,
  ("optax._src.base", "EmptyState"): 0,
}


@pytest.mark.parametrize("names", CLASSES)
def test_named_tuples_have_their_fields(names):
  count = CLASSES[names]
  values = [b"K" + bytes([i]) for i in range(count)]
  record = load(call(line(*names), *values, opcode=b"\x81") + STOP)
  assert record.name == ".".join(names)
  assert list(record.fields.values()) == list(range(count))
  with pytest.raises(WeightsError, match=f"of {count + 1} values; expected"):
    load(call(line(*names), *values, b"N", opcode=b"\x81") + STOP)


@pytest.mark.parametrize("module", ["dill._dill", "dill.dill"])
def test_classes_of_dill_are_made_of_their_fields(module):
  fields = b"(" + text("mu") + text("nu") + b"t"
  create = line(module, "_create_namedtuple")
  made = call(create, text("State"), fields, text("some.where"))
  record = load(call(made, b"K\1", b"K\2", opcode=b"\x81") + STOP)
  assert (record.name, record.fields) == (
    "some.where.State",
    {"mu": 1, "nu": 2},
  )
  for wrong in (b"K\1", b"]" + 65 * (text("a") + b"a"), b"(K\1t"):
    with pytest.raises(WeightsError, match="without names of fields"):
      load(call(create, text("State"), wrong, text("m")) + STOP)


@pytest.mark.parametrize(
  ("module", "name", "said"),
  [
    ("os", "system", "asks for os.system,"),
    ("_codecs", "lookup", "asks for _codecs.lookup,"),
    ("numpy", "core", "asks for numpy.core,"),
    ("dill._dill", "_get_attr", "asks for dill._dill._get_attr,"),
  ],
)
def test_attributes_of_dill_are_names_of_the_table(module, name, said):
  tables = pickled_arrays.admitted(lambda: io.BytesIO(b""))
  tables = {**tables, **pickled_records.looked_up(tables)}
  found = call(line("dill._dill", "_import_module"), text(module))
  pickled = call(line("dill._dill", "_get_attr"), found, text(name)) + STOP
  with pytest.raises(WeightsError, match=said):
    pickle_machine.load(io.BytesIO(pickled), admitted=tables)
  pickled = call(line("dill._dill", "_get_attr"), text(module), text(name))
  with pytest.raises(WeightsError, match="an attribute of something"):
    pickle_machine.load(io.BytesIO(pickled + STOP), admitted=tables)


@pytest.mark.parametrize("name", ["FlatMapping", "FlatMap", "frozendict"])
def test_mappings_of_haiku_are_dicts(name):
  function = line("haiku._src.data_structures", name)
  assert load(call(function, b"}" + text("a") + b"K\1s") + STOP) == {"a": 1}
  with pytest.raises(WeightsError, match="made of no dict"):
    load(call(function, b"]") + STOP)


def test_ordered_dicts_are_dicts():
  made = line("collections", "OrderedDict") + b")R"
  pickled = made + text("a") + b"K\1s" + b"}" + text("_metadata") + b"Nsb."
  assert load(pickled) == {"a": 1}


@pytest.mark.parametrize(
  ("items", "found"),
  [
    (b"](" + text("a") + b"K\1\x86e", {"a": 1}),
    (b"](](" + text("a") + b"K\1ee", {"a": 1}),  # as Python 2 wrote a pair
    (b"](K\1K\1\x86e", None),  # a key that is no text
    (b"](" + text("a") + b"e", None),
    (b"K\1", None),
  ],
)
def test_ordered_dicts_are_made_of_pairs(items, found):
  pickled = call(line("collections", "OrderedDict"), items) + STOP
  if found is not None:
    assert load(pickled) == found
    return
  with pytest.raises(WeightsError, match="OrderedDict that is not of pairs"):
    load(pickled)
