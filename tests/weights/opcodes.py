"""Pickles that are put together by hand, as an attacker would."""

import struct

STOP = b"."


def line(module, name, opcode=b"c"):
  """GLOBAL, or INST."""
  return opcode + f"{module}\n{name}\n".encode()


def text(value):
  """BINUNICODE."""
  encoded = value.encode()
  return b"X" + struct.pack("<I", len(encoded)) + encoded


def short_text(value):
  """SHORT_BINUNICODE, of protocol 4."""
  encoded = value.encode()
  return b"\x8c" + bytes([len(encoded)]) + encoded


def stack_name(module, name):
  """STACK_GLOBAL, of protocol 4."""
  return short_text(module) + short_text(name) + b"\x93"


def call(function, *arguments, opcode=b"R"):
  """REDUCE, or NEWOBJ."""
  return function + b"(" + b"".join(arguments) + b"t" + opcode
