"""Writes CIFAR-10 as TFDS would, from a local copy and without the network.

  python tests/prepare_cifar10.py OUT_DIR [--source ../shared/data/cifar10]

Afterwards `open_source("cifar10", "train", OUT_DIR)` reads it.
"""

import argparse
import json
import pathlib
import runpy
from collections.abc import Iterator, Mapping

import cv2
import numpy as np
import tensorflow_datasets as tfds

DATA = pathlib.Path(__file__).parents[1] / "../shared/data"

Images = tuple[np.ndarray, np.ndarray]


def write_cifar10(
  out_dir: str,
  splits: Mapping[str, Images],
  class_names: list[str],
  file_format: str = "array_record",
) -> None:
  """Writes `out_dir/cifar10/3.0.2`, with TFDS's own features and shuffling.

  Args:
    out_dir: TFDS's data_dir.
    splits: name -> (images uint8 [N, 32, 32, 3] RGB, labels int [N]).
    class_names: ten.
    file_format: of TFDS.
  """

  class LocalCifar10(tfds.builder_cls("cifar10"), skip_registration=True):
    """TFDS's builder, with another origin of the images."""

    name = "cifar10"

    def _split_generators(self, dl_manager):
      del dl_manager
      self.info.features["label"].names = class_names
      return {name: examples(name, *splits[name]) for name in splits}

  tfds.disable_progress_bar()
  LocalCifar10(data_dir=out_dir, file_format=file_format).download_and_prepare()


def examples(
  split: str, images: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[int, dict]]:
  """Yields (key, example) of one split, in the form TFDS takes."""
  for i, (image, label) in enumerate(zip(images, labels, strict=True)):
    # As bytes: TFDS would load TensorFlow to encode an array.
    _, png = cv2.imencode(".png", image[..., ::-1])
    name = f"{split}_{i:05d}"
    yield i, {"id": name, "image": png.tobytes(), "label": int(label)}


def read_cifar10(source: pathlib.Path) -> dict[str, Images]:
  """Reads the compact files in `source`: split -> (images, labels)."""
  decode = runpy.run_path(str(DATA / "readers/cifar_lossless.py"))["decode"]
  return {
    split: decode(source / f"cifar10_{split}_lossless_xz.npz")
    for split in ("train", "test")
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("out_dir")
  parser.add_argument("--source", type=pathlib.Path, default=DATA / "cifar10")
  args = parser.parse_args()
  names = json.loads((args.source / "classes.json").read_text())
  write_cifar10(args.out_dir, read_cifar10(args.source), names)


if __name__ == "__main__":
  main()
