"""Reads pickles without executing them: our own machine for their opcodes.

A pickle is a program. Python's own unpickler runs it, and lets it import and
call whatever it names. This machine knows the same opcodes and can do much
less, so that files of strangers can be read:

- It calls only what its caller has put into a table under the name that the
  pickle asks for, and nothing is ever imported (see `pickle_calls`).
- Lengths are compared with the file before they are used, and long texts and
  bytes stay in the file as a `Blob`. What is held in memory is bounded.
- Nothing recurses, and nothing hashes, compares or prints what it has built,
  so neither deep nor branching structures cost more than their opcodes.

What it returns may contain itself, or be endless to walk: who uses it looks
only where it expects something.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Final

from byol_flax.weights import pickle_input
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.pickle_calls import Calls, Named
from byol_flax.weights.pickle_input import decoded, shown

_NAMES: Final = {
  opcode.code.encode("latin-1"): opcode.name for opcode in pickletools.opcodes
}
# Bounds. The largest published checkpoint needs 0.15 million opcodes.
_MAX_OPCODES: Final = 1_000_000
_MAX_MARKS: Final = 1_000
_MAX_INTEGER: Final = 32  # bytes; products of some can still be printed
_MAX_DIGITS: Final = 80  # of a number that is a text


def load(
  file: BinaryIO,
  *,
  admitted: Mapping[tuple[str, str], Callable[..., Any]],
  persistent: Callable[[Any], Any] | None = None,
) -> Any:
  """Reads one pickle, and leaves the file just behind it.

  Args:
    file: positioned at the pickle; it can seek.
    admitted: (module, name) -> what is called in its place. These functions
      check their arguments, as they may be anything that this module makes:
      None, bool, int, float, str, bytes, Blob, tuple, list, dict, Named, and
      what the functions themselves return.
    persistent: gives the object that a persistent id stands for; without it,
      they are refused.

  Raises:
    WeightsError: it is no pickle, damaged, or asks for what is not admitted.
  """
  return _Machine(pickle_input.Input(file), Calls(admitted, persistent)).run()


class _Machine:
  """The stack, the memo, and a method for each opcode that is known."""

  def __init__(self, source: pickle_input.Input, calls: Calls) -> None:
    self.input = source
    self.calls = calls
    self.stack: list[Any] = []
    self.marked: list[list[Any]] = []  # the stacks below each mark
    self.memo: dict[int, Any] = {}

  def run(self) -> Any:
    """Interprets until STOP, and returns what is on the stack then."""
    for _ in range(_MAX_OPCODES):
      code = self.input.take(1)
      if code == b".":
        return self.pop()
      name = _NAMES.get(code)
      if name is None:
        raise WeightsError(f"It is no pickle: {code!r} is no opcode.")
      operation = _OPERATIONS.get(name)
      if operation is None:
        raise WeightsError(
          f"It uses the opcode {name}, which no weight file needs."
        )
      operation(self)
    raise WeightsError(f"It has more than {_MAX_OPCODES} opcodes.")

  def push(self, value: Any) -> None:
    self.stack.append(value)

  def pop(self) -> Any:
    if not self.stack:
      raise WeightsError("It takes an object from an empty stack.")
    return self.stack.pop()

  def pop_two(self) -> list[Any]:
    second = self.pop()
    return [self.pop(), second]

  def mark(self) -> None:
    if len(self.marked) == _MAX_MARKS:
      raise WeightsError(f"It nests more than {_MAX_MARKS} marks.")
    self.marked.append(self.stack)
    self.stack = []

  def pop_mark(self) -> list[Any]:
    """All that was pushed since the last mark."""
    if not self.marked:
      raise WeightsError("It goes back to a mark that it did not set.")
    items, self.stack = self.stack, self.marked.pop()
    return items

  def top(self) -> Any:
    if not self.stack:
      raise WeightsError("It uses an object of an empty stack.")
    return self.stack[-1]

  # Names and calls.

  def global_line(self) -> Named:
    """What is admitted under the module and name on the next two lines."""
    module, name = (decoded(self.input.line(), "utf-8") for _ in range(2))
    return self.calls.named(module, name)

  def stack_global(self) -> None:
    name = self.pop()
    self.push(self.calls.named(self.pop(), name))

  def reduce(self) -> None:
    arguments = self.pop()
    self.push(self.calls.call(self.pop(), arguments))

  def newobj_ex(self) -> None:
    keywords = self.pop()
    if type(keywords) is not dict or keywords:
      raise WeightsError("It calls a name with keywords (NEWOBJ_EX).")
    self.reduce()

  def inst(self) -> None:
    named = self.global_line()
    self.push(self.calls.call(named, tuple(self.pop_mark())))

  def obj(self) -> None:
    function, *arguments = self.pop_mark() or [None]
    self.push(self.calls.call(function, tuple(arguments)))

  def build(self) -> None:
    state = self.pop()
    self.calls.build(self.top(), state)

  # Containers.

  def dictionary(self) -> None:
    items = self.pop_mark()
    self.push({})
    self.setitems(items)

  def tuple_of(self, length: int) -> None:
    self.push(tuple(reversed([self.pop() for _ in range(length)])))

  def append(self, items: list[Any]) -> None:
    target = self.top()
    if not isinstance(target, list):
      raise WeightsError(f"It appends to a {type(target).__name__}.")
    target.extend(items)

  def setitems(self, items: list[Any]) -> None:
    target = self.top()
    if not isinstance(target, dict):
      raise WeightsError(f"It sets keys of a {type(target).__name__}.")
    if len(items) % 2:
      raise WeightsError("It sets a key without a value.")
    for key, value in zip(items[::2], items[1::2], strict=True):
      # Hashes of any other type could be made to collide.
      if not isinstance(key, str) and not _is_small_integer(key):
        raise WeightsError(
          f"It has a key of type {type(key).__name__}; expected a text or an "
          "integer of at most 64 bits."
        )
      target[key] = value

  # Values.

  def integer(self, length: int) -> None:
    if not 0 <= length <= _MAX_INTEGER:
      raise WeightsError(f"It has an integer of {length} bytes.")
    taken = self.input.take(length)
    self.push(int.from_bytes(taken, "little", signed=True))

  def line_number(self, kind: Callable[[str], Any]) -> None:
    line = decoded(self.input.line().removesuffix(b"L"), "ascii")
    if len(line) > _MAX_DIGITS:
      raise WeightsError(f"It has a number of {len(line)} digits.")
    try:
      self.push(kind(line))
    except ValueError:
      raise WeightsError(f"{shown(line)} is no number.") from None

  def int_line(self) -> None:
    # Protocol 0 writes False and True as the numbers 00 and 01.
    booleans = {"00": False, "01": True}
    self.line_number(
      lambda line: booleans[line] if line in booleans else int(line)
    )

  def text(self, length: int, encoding: str = "utf-8") -> None:
    """A text; one of Python 2 (latin-1) stays bytes if it is long."""
    kind = "text" if encoding == "utf-8" else "bytes"
    content = self.input.content(length, kind)
    if isinstance(content, bytes):
      self.push(decoded(content, encoding))
    else:
      self.push(content)

  def bytes_of(self, length: int) -> None:
    self.push(self.input.content(length, "bytes"))

  # The memo, and what else the machine knows of itself.

  def put(self, index: int) -> None:
    self.memo[index] = self.top()

  def get(self, index: int) -> None:
    if index not in self.memo:
      raise WeightsError(f"It recalls object {index}, which it never stored.")
    self.push(self.memo[index])

  def line_index(self) -> int:
    line = self.input.line()
    if not line.isdigit() or len(line) > 18:
      raise WeightsError("It has an index of the memo that is no number.")
    return int(line)

  def protocol(self) -> None:
    version = self.input.number("B")
    if version > 5:
      raise WeightsError(
        f"It is a pickle of protocol {version}; expected one of 0 to 5."
      )


def _is_small_integer(key: Any) -> bool:
  return isinstance(key, int) and key.bit_length() <= 64


# Opcodes that are absent are refused: sets, quoted texts of Python 2, buffers
# outside of the pickle, and EXT1 and its kin, which stand for other names.
_OPERATIONS: Final[Mapping[str, Callable[[_Machine], Any]]] = {
  "PROTO": _Machine.protocol,
  "FRAME": lambda m: m.input.check(m.input.number("<Q")),
  # Names and calls.
  "GLOBAL": lambda m: m.push(m.global_line()),
  "STACK_GLOBAL": _Machine.stack_global,
  "REDUCE": _Machine.reduce,
  "NEWOBJ": _Machine.reduce,
  "NEWOBJ_EX": _Machine.newobj_ex,
  "INST": _Machine.inst,
  "OBJ": _Machine.obj,
  "BUILD": _Machine.build,
  "PERSID": lambda m: m.push(m.calls.refer(decoded(m.input.line(), "ascii"))),
  "BINPERSID": lambda m: m.push(m.calls.refer(m.pop())),
  # Containers.
  "EMPTY_TUPLE": lambda m: m.push(()),
  "TUPLE1": lambda m: m.tuple_of(1),
  "TUPLE2": lambda m: m.tuple_of(2),
  "TUPLE3": lambda m: m.tuple_of(3),
  "TUPLE": lambda m: m.push(tuple(m.pop_mark())),
  "EMPTY_LIST": lambda m: m.push([]),
  "LIST": lambda m: m.push(m.pop_mark()),
  "APPEND": lambda m: m.append([m.pop()]),
  "APPENDS": lambda m: m.append(m.pop_mark()),
  "EMPTY_DICT": lambda m: m.push({}),
  "DICT": _Machine.dictionary,
  "SETITEM": lambda m: m.setitems(m.pop_two()),
  "SETITEMS": lambda m: m.setitems(m.pop_mark()),
  # Values.
  "NONE": lambda m: m.push(None),
  "NEWTRUE": lambda m: m.push(True),
  "NEWFALSE": lambda m: m.push(False),
  "INT": _Machine.int_line,
  "BININT": lambda m: m.push(m.input.number("<i")),
  "BININT1": lambda m: m.push(m.input.number("B")),
  "BININT2": lambda m: m.push(m.input.number("<H")),
  "LONG": lambda m: m.line_number(int),
  "LONG1": lambda m: m.integer(m.input.number("B")),
  "LONG4": lambda m: m.integer(m.input.number("<i")),
  "FLOAT": lambda m: m.line_number(float),
  "BINFLOAT": lambda m: m.push(m.input.number(">d")),
  "SHORT_BINSTRING": lambda m: m.text(m.input.number("B"), "latin-1"),
  "BINSTRING": lambda m: m.text(m.input.number("<i"), "latin-1"),
  "UNICODE": lambda m: m.push(decoded(m.input.line(), "raw-unicode-escape")),
  "SHORT_BINUNICODE": lambda m: m.text(m.input.number("B")),
  "BINUNICODE": lambda m: m.text(m.input.number("<I")),
  "BINUNICODE8": lambda m: m.text(m.input.number("<Q")),
  "SHORT_BINBYTES": lambda m: m.bytes_of(m.input.number("B")),
  "BINBYTES": lambda m: m.bytes_of(m.input.number("<I")),
  "BINBYTES8": lambda m: m.bytes_of(m.input.number("<Q")),
  "BYTEARRAY8": lambda m: m.bytes_of(m.input.number("<Q")),
  # The stack and the memo.
  "MARK": _Machine.mark,
  "POP": lambda m: m.pop() if m.stack else m.pop_mark(),
  "POP_MARK": _Machine.pop_mark,
  "DUP": lambda m: m.push(m.top()),
  "PUT": lambda m: m.put(m.line_index()),
  "BINPUT": lambda m: m.put(m.input.number("B")),
  "LONG_BINPUT": lambda m: m.put(m.input.number("<I")),
  "MEMOIZE": lambda m: m.put(len(m.memo)),
  "GET": lambda m: m.get(m.line_index()),
  "BINGET": lambda m: m.get(m.input.number("B")),
  "LONG_BINGET": lambda m: m.get(m.input.number("<I")),
}
