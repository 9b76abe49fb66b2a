"""Damaged and hostile image files through the whole input pipeline.

Command: python -m tests.hostile --files=10000 --workers=2
Writes mutated files of every format with a sound one after every eight, reads
one epoch of them as training would, and checks that every file was either
decoded or counted and named, within bounded time and memory.
"""

import argparse
import collections
import io
import pathlib
import re
import struct
import tempfile
import time
import zlib

import cv2
import numpy as np
from PIL import Image

from input_pipeline import augment, decoding, loading, pipeline, sources
from input_pipeline.unreadable import UnreadableImages
from tests.input_pipeline.test_pipeline import VIEW

BATCH = 16
SIZE = 64
SOUND_EVERY = 9


def picture(rng):
  """A photograph's worth of detail, in no particular size."""
  height, width = rng.integers(40, 400, 2)
  coarse = rng.integers(0, 256, (9, 9, 3), np.uint8)
  image = cv2.resize(coarse, (int(width), int(height))).astype(np.int16)
  noise = rng.integers(-20, 20, image.shape)
  return Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8))


def encode(image, form, **options):
  out = io.BytesIO()
  image.save(out, form, **options)
  return out.getvalue()


FORMATS = {
  "jpeg": lambda image: encode(image, "JPEG", quality=90),
  "progressive": lambda image: encode(image, "JPEG", progressive=True),
  "cmyk": lambda image: encode(image.convert("CMYK"), "JPEG"),
  "png": lambda image: encode(image, "PNG", compress_level=1),
  "palette": lambda image: encode(image.quantize(64), "PNG"),
  "webp": lambda image: encode(image, "WEBP", method=0),
  "lossless": lambda image: encode(image, "WEBP", lossless=True, method=0),
  "bmp": lambda image: encode(image, "BMP"),
  "gif": lambda image: encode(image, "GIF"),
  "tiff": lambda image: encode(image, "TIFF"),
  "packed tiff": lambda image: encode(image, "TIFF", compression="tiff_lzw"),
  "avif": lambda image: encode(image, "AVIF", speed=10),
}


def truncate(data, rng):
  return data[: rng.integers(0, len(data))]


def flip_bits(data, rng):
  out = bytearray(data)
  for _ in range(2 ** rng.integers(0, 8)):
    out[rng.integers(0, len(out))] ^= 1 << rng.integers(0, 8)
  return bytes(out)


def flip_header(data, rng):
  out = bytearray(data)
  for _ in range(rng.integers(1, 6)):
    out[rng.integers(0, min(64, len(out)))] = rng.integers(0, 256)
  return bytes(out)


def blank(data, rng):
  start, stop = sorted(rng.integers(0, len(data), 2))
  return data[:start] + bytes(int(stop - start)) + data[stop:]


def splice(data, rng):
  start, stop = sorted(rng.integers(0, len(data), 2))
  at = rng.integers(0, len(data))
  return data[:at] + data[start:stop] + data[at:]


def lie_about_size(data, rng):
  """Announces 60,000 × 60,000 pixels, or none, or a single row."""
  sides = [(60_000, 60_000), (0, 0), (1, 65_535), (65_535, 2), (40_000, 3_000)]
  width, height = sides[rng.integers(0, len(sides))]
  if data.startswith(b"\xff\xd8"):
    frame = re.search(rb"\xff[\xc0\xc2]..\x08(....)", data, re.DOTALL)
    lie = struct.pack(">HH", height, width)
    return data[: frame.start(1)] + lie + data[frame.end(1) :]
  if data.startswith(b"\x89PNG"):
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return (
      data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    )
  if data.startswith(b"BM"):
    return data[:18] + struct.pack("<ii", width, height) + data[26:]
  out = bytearray(data)
  if data.startswith(b"GIF"):
    out[6:10] = struct.pack("<HH", width, height)
    return bytes(out)
  if data.startswith(b"II"):  # TIFF: tags 256 and 257, of one long each
    for tag, value in ((256, width), (257, height)):
      entry = data.find(struct.pack("<HH", tag, 4))
      if entry >= 0:
        out[entry + 8 : entry + 12] = struct.pack("<I", value)
    return bytes(out)
  if data[4:8] == b"ftyp":  # AVIF: the box "ispe"
    at = data.index(b"ispe") + 8
    out[at : at + 8] = struct.pack(">II", width, height)
    return bytes(out)
  # WebP: 14 bits each, somewhere in the first chunk
  out[23:30] = struct.pack("<BHHH", 0x9D, 0x3FFF, 0x3FFF, 0x3FFF)
  return bytes(out)


def chunk(kind, body):
  return (
    struct.pack(">I", len(body))
    + kind
    + body
    + struct.pack(">I", zlib.crc32(kind + body))
  )


def bomb(data, rng):
  """A PNG that is small as a file and large as soon as it is unpacked."""
  del data
  start, end = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
  zeros = zlib.compress(bytes(60_000_000), 9)
  kind = rng.integers(0, 4)
  if kind == 0:  # more pixels than are decoded
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", zeros) + end
  header = struct.pack(">IIBBBBB", 20, 20, 8, 2, 0, 0, 0)
  body = chunk(b"IHDR", header)
  if kind == 1:  # a comment
    body += chunk(b"zTXt", b"Comment\0\0" + zeros)
  if kind == 2:  # a colour profile
    body += chunk(b"iCCP", b"profile\0\0" + zeros)
  # The last kind has far more pixels than it announces.
  pixels = zeros if kind == 3 else zlib.compress(bytes(20 * 61))
  return start + body + chunk(b"IDAT", pixels) + end


MUTATIONS = {
  "cut": truncate,
  "bits flipped": flip_bits,
  "header changed": flip_header,
  "blanked": blank,
  "spliced": splice,
  "size is a lie": lie_about_size,
  "bomb": bomb,
}


def write_files(folder, count, seed):
  """Writes `count` mutated files; names tell what was done to them."""
  rng = np.random.default_rng(seed)
  names = list(MUTATIONS)
  forms = list(FORMATS)
  for i in range(count):
    mutation = names[i % len(names)]
    # Bombs take a second each; the bytes are the same again and again.
    if mutation == "bomb" and i // len(names) % 8:
      mutation = "bits flipped"
    form = forms[i // len(names) % len(forms)]
    data = MUTATIONS[mutation](FORMATS[form](picture(rng)), rng)
    name = f"{i:06d}-{mutation.replace(' ', '_')}-{form}.jpg"
    pathlib.Path(folder, name).write_bytes(data)
    if i % (SOUND_EVERY - 1) == 0:
      sound = FORMATS["jpeg"](picture(rng))
      pathlib.Path(folder, f"{i:06d}-sound.jpg").write_bytes(sound)


def memory_of_workers():
  """Most bytes that a child of this process has used."""
  import multiprocessing

  most = 0
  for child in multiprocessing.active_children():
    status = pathlib.Path(f"/proc/{child.pid}/status")
    try:
      found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    except OSError:
      continue
    most = max(most, int(found[1]) * 1024 if found else 0)
  return most


def run(folder, workers, report):
  """One epoch of a folder; what was found, and seconds and bytes it took."""
  source = sources.ReadableSource(
    sources.open_source(f"unlabelled:{folder}", "all")
  )
  unreadable = UnreadableImages(source, str(report), 1.0)
  transform = augment.TwoViews(size=SIZE, view1=VIEW, view2=VIEW)
  batches = pipeline.train_iterator(
    pipeline.view_stream(source, transform, 0),
    loading.Loading(
      num_workers=workers,
      num_threads=1,
      chunk_rows=BATCH,
      row_bytes=transform.row_bytes,
    ),
    rows=BATCH,
    start_step=0,
    process_index=0,
    process_count=1,
    unreadable=unreadable,
  )
  longest, most, begun = 0.0, 0, time.monotonic()
  before = begun
  for step in range(-(-len(source) // BATCH)):
    next(batches)
    if step:  # the first waits for the workers to start
      longest = max(longest, time.monotonic() - before)
    before = time.monotonic()
    most = max(most, memory_of_workers())
  batches.close()
  return source, unreadable, longest, most, time.monotonic() - begun


def check(source, unreadable):
  """Every file is decoded, or counted and named; counts by mutation."""
  counts = collections.Counter()
  for i in range(len(source)):
    name = pathlib.Path(source.example_name(i)).stem.split("-")
    try:
      decoding.decode_image(pathlib.Path(source.example_name(i)).read_bytes())
      decoded = True
    except decoding.ImageError:
      decoded = False
    assert decoded == (i not in unreadable.indices), source.example_name(i)
    assert decoded or name[1] != "sound", source.example_name(i)
    counts[name[1], decoded] += 1
  named = unreadable.report.read_text().splitlines()
  assert len(named) == len(unreadable.indices)
  return counts


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--files", type=int, default=10_000)
  parser.add_argument("--workers", type=int, default=2)
  parser.add_argument("--seed", type=int, default=0)
  options = parser.parse_args()
  from absl import flags

  flags.FLAGS.mark_as_parsed()
  with tempfile.TemporaryDirectory() as folder:
    images = pathlib.Path(folder, "images")
    images.mkdir()
    write_files(images, options.files, options.seed)
    report = pathlib.Path(folder, "unreadable.txt")
    source, unreadable, longest, most, seconds = run(
      images, options.workers, report
    )
    counts = check(source, unreadable)
  print(
    f"{len(source):,} files in {seconds:.0f} s; longest wait {longest:.1f} s"
  )
  print(f"most memory of a worker: {most / 2**20:,.0f} MiB")
  print(f"{'':20}{'decoded':>9}{'refused':>9}")
  for kind in sorted({kind for kind, _ in counts}):
    row = (counts[kind, True], counts[kind, False])
    print(f"{kind:20}{row[0]:9,}{row[1]:9,}")


if __name__ == "__main__":
  main()
