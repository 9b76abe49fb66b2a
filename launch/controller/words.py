"""How words become lines of shell: for people to paste, for ssh to carry."""

import re
import shlex
from collections.abc import Iterable

_OPTION = re.compile(r"(--[A-Za-z_.-]+=)(.+)", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")


def quoted(words: Iterable[str]) -> str:
  """The words as one line of shell; of --zone=Z only the value is quoted."""
  return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
  option = _OPTION.fullmatch(word)
  before, value = option.groups() if option else ("", word)
  if _PLAIN.fullmatch(value):
    return before + value
  return before + "'" + value.replace("'", "'\\''") + "'"


def escaped(words: Iterable[str]) -> str:
  """The words as one line for the shell of a worker, with backslashes.

  Such a line stays readable when it is quoted once more, for our own shell.
  """
  return " ".join(_escaped(word) for word in words)


def _escaped(word: str) -> str:
  if not word or not word.isprintable():
    return shlex.quote(word)
  return re.sub(r"([^\w@%+=:,./-])", r"\\\1", word)
