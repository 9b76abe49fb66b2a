"""Writes the 128 photographs of coco128 as a folder of JPEG files.

Command: python tests/prepare_coco128.py OUT_DIR
Reads ../shared/data/coco128 beside the repository.
"""

import pathlib
import runpy
import sys

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


def write_photographs(out_dir):
  """Writes each photograph's own bytes under its own name; returns how many."""
  packs = runpy.run_path(str(SHARED / "readers" / "packs.py"))
  records = packs["array_record"](
    str(SHARED / "coco128" / "coco128-train.arrayrecord")
  )
  folder = pathlib.Path(out_dir)
  folder.mkdir(parents=True, exist_ok=True)
  for i in range(len(records)):
    example = packs["parse_example"](records[i])
    name = pathlib.PurePath(example["image/filename"].decode()).name
    (folder / name).write_bytes(example["image/encoded"])
  return len(records)


if __name__ == "__main__":
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  print(f"{write_photographs(sys.argv[1])} photographs in {sys.argv[1]}")
