"""The machine reads what pickle writes, and executes nothing of it."""

import io
import os
import pickle
import re
import struct
import subprocess
import time
import tracemalloc

import pytest

from byol_flax.weights import pickle_machine, pickled_arrays, pickled_records
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.pickle_input import Blob
from tests.weights.opcodes import (
  STOP,
  call,
  line,
  short_text,
  stack_name,
  text,
)


def load(pickled, **options):
  """Reads a pickle as a reader of weights does."""
  file = io.BytesIO(pickled)
  tables = pickled_arrays.admitted(lambda: io.BytesIO(pickled))
  tables = {**tables, **pickled_records.admitted()}
  return pickle_machine.load(file, admitted=tables, **options)


VALUES = {
  "none": None,
  "booleans": [True, False],
  "integers": [0, 255, 256, 65536, -1, 2**31, -(2**63), 2**70],
  "floats": [0.0, -1.5, float("inf")],
  "texts": ["", "a", "ü€\n'\\", "b" * 300],
  "nested": {"a": (1, [2, {"b": ((), (1,), (1, 2), (1, 2, 3, 4))}])},
}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_read(protocol):
  assert load(pickle.dumps(VALUES, protocol)) == VALUES


@pytest.mark.parametrize("protocol", range(3, 6))
def test_bytes_are_read(protocol):
  assert load(pickle.dumps([b"", b"\xff\x00"], protocol)) == [b"", b"\xff\x00"]


def test_shared_and_cyclic_objects_stay_so():
  cyclic: list = [[]]
  cyclic += [cyclic[0], cyclic]
  found = load(pickle.dumps(cyclic, 4))
  assert found[0] is found[1]
  assert found[2] is found


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_long_texts_stay_in_the_file(protocol):
  pickled = pickle.dumps(["é" * 5000, "short"], protocol)
  blob, short = load(pickled)
  assert short == "short"
  assert blob.kind == "text"
  region = pickled[blob.offset : blob.offset + blob.length]
  assert region.decode() == "é" * 5000


def test_several_pickles_lie_in_a_row():
  file = io.BytesIO(pickle.dumps(1, 2) + pickle.dumps(b"x" * 9999, 4) + b"raw")
  assert pickle_machine.load(file, admitted={}) == 1
  assert isinstance(pickle_machine.load(file, admitted={}), Blob)
  assert file.read() == b"raw"


def test_persistent_ids_go_to_the_caller():
  pickled = text("storage") + b"K\x01\x86Q."
  found = load(pickled, persistent=lambda identity: [identity])
  assert found == [("storage", 1)]


def refusal(pickled):
  """What is said of a pickle that is refused."""
  try:
    load(pickled)
  except WeightsError as error:
    return str(error)
  return "It was read."


class Executes:
  """What real pickle writes for a call, and calls when it reads it."""

  def __init__(self, function, *arguments):
    self.reduced = function, arguments

  def __reduce__(self):
    return self.reduced


def hostile(path):
  """(what it is, pickle, what is said of it); each would create a file."""
  command = f"touch {path}"
  system, argument = line("os", "system"), text(command)
  for function, arguments in (
    (os.system, (command,)),
    (eval, (f"open({str(path)!r}, 'w')",)),
    (exec, (f"open({str(path)!r}, 'w')",)),
    (subprocess.check_call, (["touch", str(path)],)),
    (open, (str(path), "w")),
    (__import__, ("os",)),
  ):
    for protocol in range(6):
      pickled = pickle.dumps(Executes(function, *arguments), protocol)
      name = function.__name__
      yield f"reduce {name} {protocol}", pickled, rf"asks for \S*\.{name}, "
  inner = pickle.dumps(Executes(os.system, command), 4)
  nested = call(line("pickle", "loads"), b"C" + bytes([len(inner)]) + inner)
  for name, pickled, said in (
    ("stack_global", call(stack_name("os", "system"), argument), "os.system"),
    (
      "dotted",
      call(stack_name("numpy", "core.os.system"), argument),
      "core.os",
    ),
    ("inst", b"(" + argument + line("os", "system", b"i"), "os.system"),
    ("obj", b"(" + system + argument + b"o", "os.system"),
    ("newobj", call(system, argument, opcode=b"\x81"), "os.system"),
    ("newobj_ex", system + b"(" + argument + b"t}\x92", "os.system"),
    ("keywords", text("x") + b")}X\1\0\0\0aK\1s\x92", "with keywords"),
    ("nested", nested, "pickle.loads"),
    ("nested in dill", call(line("dill._dill", "loads"), nested), "dill.loads"),
    ("ext1", b"\x82\x01" + argument + b"\x85R", "opcode EXT1"),
    ("ext2", b"\x83\x01\x00" + argument + b"\x85R", "opcode EXT2"),
    ("ext4", b"\x84\x01\x00\x00\x00" + argument + b"\x85R", "opcode EXT4"),
    ("text persistent id", b"Pfile\n", "persistent id"),
    ("persistent id", argument + b"Q", "persistent id"),
    ("call of a text", call(text("os.system"), argument), "of type str"),
    ("call of a dict", call(b"}", argument), "of type dict"),
    ("state of a dict", b"}" + text("x") + b"b", "of type dict"),
    ("state of a name", line("numpy", "ndarray") + b"}b", "type Named"),
    ("state of nothing", b"}b", "empty stack"),
    ("no text as name", b"K\1K\2\x93", "a name that is no text"),
    ("no tuple", line("numpy", "dtype") + argument + b"R", "without a tuple"),
    ("key of a tuple", b"}(K\1K\2t)s", "key of type tuple"),
    ("huge key", b"}\x8a\x20" + b"\x7f" * 32 + b")s", "at most 64 bits"),
    ("set", b"\x8f", "opcode EMPTY_SET"),
    ("buffer", b"\x97", "opcode NEXT_BUFFER"),
    (
      "encode",
      call(line("_codecs", "encode"), argument, text("zip")),
      "latin-1",
    ),
    ("ndarray", call(line("numpy", "ndarray"), b"K\1"), "calls numpy.ndarray"),
    ("bytes", call(line("builtins", "bytes"), b"J\0\0\0\x7f"), "makes bytes"),
    ("arguments", call(line("numpy", "dtype")), "dtype with arguments that"),
  ):
    yield name, pickled + STOP, said


def test_hostile_files_are_refused_by_name_and_nothing_runs(tmp_path):
  path = tmp_path / "executed"
  for name, pickled, said in hostile(path):
    assert re.search(said, refusal(pickled)), name
    assert not path.exists(), name
  # They are hostile indeed: Python's own unpickler runs them.
  pickle.loads(next(hostile(path))[1])
  assert path.exists()


LENGTHS = {
  "text": b"X\xff\xff\xff\xff",
  "text 8": b"\x8d" + b"\xff" * 8,
  "text 8 of 2 GB": b"\x8d" + struct.pack("<Q", 2 << 30),
  "short text": b"\x8c\xff",
  "text of Python 2": b"T\xff\xff\xff\x7f",
  "negative": b"T\xff\xff\xff\xff",
  "bytes": b"B\xff\xff\xff\x7f",
  "bytes 8": b"\x8e" + b"\xff" * 8,
  "bytearray": b"\x96" + b"\xff" * 8,
  "frame": b"\x80\x04\x95" + b"\xff" * 8,
  "integer": b"\x8b\xff\xff\xff\x7f",
  "negative integer": b"\x8b\xff\xff\xff\xff",
  "line": b"V" + b"a" * 100_000,
}


@pytest.mark.parametrize("name", LENGTHS)
def test_lengths_beyond_the_file_are_refused(name):
  said = "It ends early|has an integer of|has no end within"
  with pytest.raises(WeightsError, match=said):
    load(LENGTHS[name] + b"abc.")


BROKEN = {
  "stack": (b"0.", "mark that it did not"),
  "pop": (b"a.", "empty stack"),
  "stop": (b".", "empty stack"),
  "mark": (b"t.", "mark that it did not set"),
  "memo": (b"h\x07.", "recalls object 7"),
  "memo line": (b"g-1\n.", "no number"),
  "opcode": (b"\xff.", "no opcode"),
  "protocol": (b"\x80\x06N.", "protocol 6"),
  "odd": (b"}(K\1u.", "key without a value"),
  "append": (b"}K\1a.", "appends to a dict"),
  "set": (b"]K\1K\2s.", "sets keys of a list"),
  "utf-8": (b"X\1\0\0\0\xff.", "no utf-8"),
  "number": (b"Iabc\n.", "abc is no number"),
  "zip": (b"PK\3\4", "ends early|no opcode|no number|no end|empty stack"),
  "empty": (b"", "ends early"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pickles_are_told(name):
  pickled, said = BROKEN[name]
  with pytest.raises(WeightsError, match=said):
    load(pickled)


def laughs(levels=100, opening=b"(", closing=b"l"):
  """Lists of ten times the list before: 10^levels items in all."""
  pickled = b"]q\0"
  for level in range(levels):
    before = b"h" + bytes([level])
    pickled += opening + 10 * before + closing + b"q" + bytes([level + 1])
  return pickled + STOP


def repeated(function, arguments, times):
  """The same arguments, passed to many calls."""
  known = arguments + b"q\0" + function + b"q\1"
  return known + b"(" + times * b"h\1h\0R" + b"t."


BOMBS = {  # pickle, and what is said of it if it is refused
  "laughs": (laughs(), None),
  "laughs of tuples": (laughs(closing=b"t"), None),
  "deep lists": (b"]" + 50_000 * b"]a" + STOP, None),
  "deep tuples": (b")" + 50_000 * b"\x85" + STOP, None),
  "deep marks": (2000 * b"(", "nests more than"),
  "endless": (1_000_001 * b"N" + STOP, "opcodes"),
  "memo": (b"Nr\xff\xff\xff\xff.", None),
  "passed on": (
    repeated(
      line("_codecs", "encode"),
      b"X\xff\3\0\0" + 1023 * b"a" + text("latin1") + b"\x86",
      70_000,
    ),
    "passes more to calls",
  ),
  "texts": (
    b"(" + 70_000 * (b"X\xff\3\0\0" + 1023 * b"a") + b"t.",
    "short texts are more",
  ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_no_more_than_their_opcodes(name):
  pickled, said = BOMBS[name]
  tracemalloc.start()
  start = time.process_time()
  try:
    if said:
      with pytest.raises(WeightsError, match=said):
        load(pickled)
    else:
      assert isinstance(load(pickled), list | tuple | None)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert time.process_time() - start < 10
  assert peak < 200e6


def test_messages_stay_short_and_plain():
  name = "a" * 200 + "\x1b[31m\n"
  with pytest.raises(WeightsError) as told:
    load(short_text("m") + text(name) + b"\x93.")
  assert len(str(told.value)) < 200
  with pytest.raises(WeightsError, match=r"m\.\\x1b\[31m\\n, which"):
    load(short_text("m") + text("\x1b[31m\n") + b"\x93.")
