"""The flags of commands that take an encoder, and flags that several share."""

import argparse
import os
from collections.abc import Callable

from input_pipeline import paths


def add_encoder(verb: argparse.ArgumentParser, more: str) -> None:
  """Adds the flag that names an encoder; `more` ends its help."""
  verb.add_argument(
    "--encoder",
    type=paths.of_encoder,
    metavar="ENCODER",
    help="WORKDIR of a run, WORKDIR@STEP for a checkpoint that is not the "
    "newest, a weight file or its folder, or random:CONFIG for an encoder that "
    f"was never trained{more}",
  )


def add_processes(verb: argparse.ArgumentParser) -> None:
  """Adds the flags of a command that several processes run together."""
  for name, kind, text in (
    ("coordinator", str, "HOST:PORT of process 0, with the next port free too"),
    ("process-count", int, "how many processes work together"),
    ("process-index", int, "which of them this is, from 0"),
  ):
    verb.add_argument(
      f"--{name}",
      type=kind,
      default=os.environ.get(f"BYOL_{name.upper().replace('-', '_')}") or None,
      help=f"{text}; not needed on TPU VMs",
    )


def add_evaluate(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
  """Adds the command that evaluates."""
  verb = add(
    "evaluate",
    "Evaluate an encoder by the protocol of a config, such as "
    "configs/few_label.py (kNN and linear probes on few labels), or detection, "
    "segmentation and depth by the configs of these names.",
  )
  add_encoder(verb, "")
  verb.add_argument(
    "--workdir",
    type=paths.absolute,
    required=True,
    help="folder of the evaluation; without --encoder, which knn and few_label "
    "can do, the folder of the run whose newest checkpoint is evaluated",
  )
  verb.add_argument(
    "--suite",
    metavar="NAME[:PART,...]",
    help="in place of --config=FILE: all evaluations of a suite, or some parts "
    "of it, and a report beside the paper's numbers; NAME is paper, and "
    "--config.PART.key=value overrides one value",
  )
  add_processes(verb)


def add_features(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
  """Adds the command that writes representations, which takes no config."""
  verb = add(
    "features",
    "Write the representations of all images of a data set into one file, with "
    "their paths and labels. The same command goes on where it was cut off.",
  )
  verb.epilog = (
    "FILE.parquet has columns id, label, class and representation; FILE.npz "
    "has arrays representation, label, id and metadata. Meanwhile FILE.parts "
    "holds what is done. Images that cannot be read are left out, and told."
  )
  add_encoder(verb, "")
  verb.add_argument(
    "--data",
    type=paths.of_data_set,
    required=True,
    metavar="NAME",
    help="folder:DIR, with a folder for each class or without, or any other "
    "name that data.name of a config may have",
  )
  verb.add_argument(
    "--split",
    default="train",
    help="of the data set, or a slice such as 'train[:90%%]'; all is the whole "
    "of a folder; by default train",
  )
  verb.add_argument(
    "--data-dir",
    type=paths.absolute,
    metavar="DIR",
    help="TFDS's data_dir; by default that of the encoder's run",
  )
  verb.add_argument(
    "--out",
    type=paths.absolute,
    required=True,
    metavar="FILE",
    help="FILE.parquet or FILE.npz",
  )
  verb.add_argument(
    "--batch-size",
    type=int,
    default=256,
    help="images that the devices compute together; by default 256",
  )
  verb.add_argument(
    "--num-workers",
    type=int,
    default=-1,
    help="processes that read images; by default one per core",
  )
  add_processes(verb)
