"""Reads thousands of damaged weight files, and sees what becomes of it.

Command: python -m tests.weights_fuzz [--files=2000] [--readers=npz,…]
Each reader's own file is mutated and read to the end: all names, all arrays.
That is done in another process, which is watched: a file may be read or refused
with a sentence. Anything else is a failure: another error, a process that ends,
too many seconds or too much memory, or an attempt to run, import or write.
"""

import argparse
import dataclasses
import multiprocessing
import pathlib
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable

from byol_flax.benchmarks import memory
from byol_flax.weights import (
  arrays,
  deepmind,
  npz,
  torch_export,
  torch_weights,
)
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Foreign
from tests.weights import deepmind_files, made, torch_made

SECONDS = 20
ENDS = ("little", "big")
MEMORY = 256 << 20  # bytes beyond what the process has before it reads
# What Python reports before it does it (PEP 578).
FORBIDDEN = (
  "os.system",
  "os.exec",
  "os.fork",
  "os.forkpty",
  "os.posix_spawn",
  "os.remove",
  "os.rename",
  "os.mkdir",
  "subprocess.Popen",
  "socket.connect",
  "pickle.find_class",
  "ctypes.dlopen",
)


@dataclasses.dataclass(frozen=True)
class Reader:
  """A format: how a file of it is made, and how it is read."""

  write: Callable[[str], None]
  read: Callable[[str], Foreign]


def _deepmind(style):
  def write(path):
    model = made.model_with(
      architecture="bottleneck:1-1:8-8:4", stem="imagenet"
    )
    networks = {
      name: deepmind_files.haiku_trees(made.variables_of(model, seed))
      for seed, name in enumerate(("online", "target"))
    }
    moved = deepmind_files.haiku_trees(made.variables_of(model, 2))["params"]
    style_of = deepmind_files.STYLES[style]
    deepmind_files.write(path, networks, moved, 3, style_of)

  return Reader(write, deepmind.read)


def _torch(kind):
  def write(path):
    named = torch_made.tensors(torch_made.state_dict(), "backbone.")
    content = {"state_dict": named, "epoch": 3, "losses": [0.5, (1, "a")]}
    pathlib.Path(path).write_bytes(torch_made.WRITERS[kind](content))

  return Reader(write, torch_weights.read)


def _state(path):
  with tempfile.TemporaryDirectory() as folder:
    torch_export.write_state(made.weights(), folder)
    shutil.copyfile(f"{folder}/model.safetensors", path)


READERS = {
  "deepmind": _deepmind("2021"),
  "deepmind4": _deepmind("protocol 4"),
  "npz": Reader(lambda path: npz.write(path, made.weights()), npz.read),
  **{f"torch_{kind}": _torch(kind) for kind in torch_made.WRITERS},
  "safetensors": Reader(_state, torch_weights.read),
}


def read_whole(reader: Reader, path: str) -> None:
  """Reads all that a file holds."""
  found = reader.read(path)
  for network in found.networks.values():
    arrays.read(network)
  arrays.read(found.momentum or {})


def mutated(content: bytes, rng: random.Random) -> bytes:
  """The file with one to four changes, near each other or far apart."""
  changed = bytearray(content)
  for _ in range(rng.choice((1, 1, 2, 4))):
    at = _position(changed, rng)
    length = rng.choice((1, 1, 2, 4, 8, 64, 1000))
    other = _position(changed, rng)
    huge = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1))
    match rng.randrange(9):
      case 0:
        changed[at] ^= 1 << rng.randrange(8)
      case 1:
        changed[at] = rng.randrange(256)
      case 2:
        changed[at : at + length] = rng.randbytes(length)
      case 3:
        del changed[at : at + length]
      case 4:
        changed[at:at] = rng.randbytes(length)
      case 5:
        changed[at:at] = changed[other : other + length]
      case 6:
        changed[at : at + length] = changed[other : other + length]
      case 7:
        size = rng.choice((1, 2, 4, 8))
        number = huge % (1 << 8 * size)
        changed[at : at + size] = number.to_bytes(size, rng.choice(ENDS))
      case 8 if rng.random() < 0.2:
        del changed[at:]
    changed = changed or bytearray(b"\0")
  return bytes(changed)


def _position(content, rng):
  """Anywhere, but half of the time near an end, where formats have tables."""
  last = len(content) - 1
  near = min(last, int(rng.expovariate(1 / 1500)))
  return rng.choice(
    (rng.randint(0, last), rng.randint(0, last), near, last - near)
  )


def serve(connection, name: str) -> None:
  """The process that reads: answers each path with (outcome, what, bytes)."""
  reader = READERS[name]
  seen: list[str] = []
  sys.addaudithook(lambda event, args: _note(seen, event, args))
  path = connection.recv()
  read_whole(reader, path)  # imports all that is needed, and has to succeed
  connection.send(("fine", "", 0))
  while path := connection.recv():
    before = memory.of_process("VmRSS")
    memory.forget_peak()
    limit = memory.of_process("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    seen.clear()
    try:
      read_whole(reader, path)
      outcome, what = "fine", ""
    except WeightsError as error:
      outcome, what = "refused", str(error)
    except BaseException:
      outcome, what = "failed", traceback.format_exc()
    if seen:
      outcome, what = "failed", f"It did {seen[0]}."
    used = memory.of_process("VmHWM") - before
    connection.send((outcome, what, used))


def _note(seen, event, args):
  if event in FORBIDDEN:
    seen.append(event)
  writes = event == "open" and isinstance(args[1], str) and args[1].strip("rbt")
  if writes and str(args[0]) != "/proc/self/clear_refs":
    seen.append(f"open {args[0]} with mode {args[1]}")


class Child:
  """A process that reads, and is replaced when it ends."""

  def __init__(self, name: str, whole: pathlib.Path) -> None:
    self.name, self.whole = name, whole
    self.begin()

  def begin(self) -> None:
    """Starts the process, and lets it read a file that is whole."""
    context = multiprocessing.get_context("spawn")
    self.connection, other = context.Pipe()
    self.process = context.Process(target=serve, args=(other, self.name))
    self.process.start()
    other.close()
    self.connection.send(str(self.whole))
    assert self.connection.recv()[0] == "fine"

  def ask(self, path: pathlib.Path) -> tuple[str, str, int]:
    """(outcome, what, bytes) of reading a file."""
    self.connection.send(str(path))
    try:
      if self.connection.poll(SECONDS):
        answer: tuple[str, str, int] = self.connection.recv()
        return answer
      what = f"It took more than {SECONDS} s."
    except EOFError:
      what = "The process ended."
    self.end()
    self.begin()
    return "failed", what, 0

  def end(self) -> None:
    """Ends the process."""
    self.process.kill()
    self.process.join()


def fuzz(name: str, files: int, folder: pathlib.Path) -> int:
  """Reads mutated files of one format; returns how many failed."""
  whole, path = folder / "whole", folder / "mutated"
  READERS[name].write(str(whole))
  content = whole.read_bytes()
  child = Child(name, whole)
  counts = {"fine": 0, "refused": 0, "failed": 0}
  most, slowest = 0, 0.0
  sentences = set()
  for seed in range(files):
    path.write_bytes(mutated(content, random.Random(seed)))
    begin = time.monotonic()
    outcome, what, used = child.ask(path)
    slowest = max(slowest, time.monotonic() - begin)
    most = max(most, used)
    counts[outcome] += 1
    if outcome == "refused":
      sentences.add("".join(c for c in what if not c.isdigit())[:40])
    if outcome == "failed":
      print(f"{name}, seed {seed}: {what}", flush=True)
  child.end()
  print(
    f"{name}: {len(content):,} bytes; {files} files: {counts['fine']} read, "
    f"{counts['refused']} refused in {len(sentences)} ways, "
    f"{counts['failed']} failed; at most {most >> 20} MiB and {slowest:.1f} s",
    flush=True,
  )
  return counts["failed"]


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--files", type=int, default=2000)
  parser.add_argument("--readers", default=",".join(READERS))
  options = parser.parse_args()
  failed = 0
  for name in options.readers.split(","):
    with tempfile.TemporaryDirectory() as folder:
      failed += fuzz(name, options.files, pathlib.Path(folder))
  sys.exit(bool(failed))


if __name__ == "__main__":
  main()
