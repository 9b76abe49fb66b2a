"""Every evaluation on several devices, which must find what one device finds.

Command: python -m tests.evaluation_devices [--only=NAME]

Each protocol, and the suite, runs on one device, on eight, and in two processes
of two devices each, with an encoder in float32 and with one in float64. Devices
add up in different orders. In float64 that rounding is too small to turn an
image, so every field that is found must agree to BOUNDS["float64"]: all
results, scores, losses of updates, and features. In float32 the bounds are
wider, and widest for `supervised`: there a difference turns the sign of some
value before a ReLU within 20 updates, and from then on two healthy trainings
part, by some images of a batch of 48.

Distances are those of `every_protocol.differences`. The command prints a table,
and exits with 1 if a bound is broken, or if a choice (a learning rate, a
penalty) or anything that is no number differs.
"""

import argparse
import math
import os
import pathlib
import re
import sys
import tempfile
import time

from tests import trainers
from tests.evaluation import every_protocol

TOPOLOGIES = ("1x1", "1x8", "2x2")  # processes x devices of each
# On a busy machine one process can be half a minute behind the other, which is
# longer than Gloo, JAX's way from CPU to CPU, waits. The same command goes on.
MISSED, STARTS = "Gloo context initialization failed", 3
# What a field's place looks like, and its kind; the first that fits counts.
KINDS = (
  (r"\.npz/guess", "share of images"),
  (r"\.npz/similarity", "similarity"),
  (r"\.npz/", "feature"),
  (r"loss|objective|excess", "loss"),
  (r"confusions/", "confusion"),
  (r"top1|top5|valid|test|knn|linear|score|mean|tables", "share of images"),
)
BOUNDS = {
  "float64": {
    "share of images": 0,
    "loss": 1e-9,
    "feature": 1e-9,
    "similarity": 1e-6,  # kNN's bank is float32 in any case
  },
  "float32": {
    "share of images": 0.01,
    "loss": 1e-5,
    "feature": 1e-5,
    "similarity": 1e-6,
  },
}
# In float32, of whole networks that are trained from random weights: rounding
# grows with every update, so that each guess near a border may turn (13 % of
# them did). That it is rounding, float64 shows. The list of the largest
# confusions changes its order with any image that turns. Dense tasks train so
# too, and their pixels and boxes turn one by one: they run in float64 only. In
# `depth` the largest error of a batch sets the loss of all pixels, so that
# rounding grows tenfold in an update (1e-16 becomes 1e-7 in nine), and the mean
# depth of train is one of sums in float32.
GROWN = {"share of images": 0.2, "loss": 0.01, "confusion": math.inf}
OF_DEPTH = dict.fromkeys(("share of images", "loss", "feature", "other"), 1e-4)


def found(folder, name, topology, dtype):
  """What an evaluation finds."""
  processes, devices = map(int, topology.split("x"))
  workdir = folder / f"{name}-{topology}-{dtype}"
  for _ in range(STARTS):
    run = trainers.Trainers(
      workdir,
      every_protocol.flags(name, folder, dtype),
      processes=processes,
      devices=devices,
      float64=dtype == "float64",
      command="evaluate",
    )
    if not any(run.wait(600)) or MISSED not in run.logs():
      break
    print(f"{name}, {dtype}, {topology}: started again, {MISSED}", flush=True)
  run.finish()
  return every_protocol.found(workdir)


def kind_of(place):
  for pattern, kind in KINDS:
    if re.search(pattern, place):
      return kind
  return "other"


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--only", choices=every_protocol.NAMES, action="append")
  options = parser.parse_args()
  begun, broken = time.monotonic(), 0
  with tempfile.TemporaryDirectory() as text:
    folder = pathlib.Path(text)
    os.environ.update(
      JAX_COMPILATION_CACHE_DIR=f"{folder}/compiled",
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    )
    for name in options.only or every_protocol.NAMES:
      for dtype, bounds in BOUNDS.items():
        if dtype == "float32" and name in every_protocol.DENSE:
          continue
        if dtype == "float32" and name == "supervised":
          bounds = GROWN
        elif name == "depth":
          bounds = OF_DEPTH
        one, *others = (found(folder, name, t, dtype) for t in TOPOLOGIES)
        for topology, other in zip(TOPOLOGIES[1:], others, strict=True):
          worst = {}
          for place, d in every_protocol.differences(other, one).items():
            kind = kind_of(place)
            worst[kind] = max(worst.get(kind, 0.0), d)
            if d > bounds.get(kind, 0):
              broken += 1
              print(
                f"BROKEN: {place} differs by {d:.1e}: "
                f"{str(other.get(place))[:200]} | {str(one.get(place))[:200]}"
              )
          print(
            f"{name}, {dtype}, {topology}, {len(one)} fields: "
            + (
              "; ".join(f"{kind} {d:.1e}" for kind, d in worst.items())
              or "equal"
            ),
            flush=True,
          )
  print(f"minutes: {(time.monotonic() - begun) / 60:.1f}")
  return bool(broken)


if __name__ == "__main__":
  sys.exit(main())
