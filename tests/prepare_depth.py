"""Writes the frames of a depth camera as folders that `depth:PATH` reads.

Command: python -m tests.prepare_depth OUT_DIR
Reads the real set `depth`; see `real_sets`. Splits: 24 frames train, 8 val.
"""

import pathlib
import runpy
import sys

from tests import real_sets

SPLITS = {
  "train": "depth-small-train24.arrayrecord",
  "val": "depth-small-val8.arrayrecord",
}


def write_frames(out_dir):
  """Writes each frame's own bytes and those of its depth; returns how many."""
  folder = pathlib.Path(real_sets.folder("depth"))
  packs = runpy.run_path(str(folder.parent / "readers" / "packs.py"))
  count = 0
  for split, file in SPLITS.items():
    out = pathlib.Path(out_dir, split)
    out.mkdir(parents=True, exist_ok=True)
    records = packs["array_record"](str(folder / file))
    for i in range(len(records)):
      example = packs["parse_example"](records[i])
      (out / f"{i:02d}.jpg").write_bytes(example["image/encoded"])
      depth = example["image/depth/png16_mm"]
      (out / f"{i:02d}.depth.png").write_bytes(depth)
      count += 1
  return count


if __name__ == "__main__":
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  print(f"{write_frames(sys.argv[1])} frames in {sys.argv[1]}")
