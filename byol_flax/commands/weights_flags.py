"""The flags of the commands that carry weights between programs."""

import argparse
from collections.abc import Callable

from input_pipeline import paths

# Kept apart from the code that writes them, which takes seconds to import.
FORMATS = ("safetensors", "huggingface", "npz", "jax")


def add_import(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
  """Adds the command that reads weights of other programs."""
  verb = add(
    "import",
    "Read the weights of another program, prove that all were understood, and "
    "write them as this project's own weight file, DIR/weights.npz. FILE is a "
    "checkpoint of BYOL's authors (.pkl), one of PyTorch (.pth, .pt, .ckpt, "
    ".tar), a .safetensors file, or a folder of Hugging Face's transformers. "
    "Nothing in it is executed.",
  )
  verb.epilog = (
    "--encoder, --init, --init-encoder and --continue take FILE itself, too; "
    "only the proof is not printed then."
  )
  verb.add_argument("file", type=paths.absolute, metavar="FILE")
  _add_out(verb)


def add_export(
  add: Callable[[str, str], argparse.ArgumentParser],
  add_encoder: Callable[[argparse.ArgumentParser, str], None],
) -> None:
  """Adds the command that writes weights for other programs."""
  verb = add(
    "export",
    "Write an encoder for other programs, and prove that it gives the same "
    "features there.",
  )
  verb.epilog = (
    "safetensors: torchvision's names, and a PyTorch module for them. "
    "huggingface: a folder for transformers, with preprocessor and model card. "
    "npz: this project's own weight file, which NumPy reads too. jax: a "
    "program that maps images to features and needs JAX and flatbuffers alone."
  )
  add_encoder(verb, "; it must have been trained")
  verb.add_argument("--format", required=True, choices=FORMATS)
  _add_out(verb)
  verb.add_argument(
    "--state",
    action="store_true",
    help="of safetensors and npz: both networks with their heads, momentum and "
    "step as well, for --init and --continue elsewhere",
  )
  verb.add_argument(
    "--classifier",
    action="store_true",
    help="of huggingface: the online classifier as well, for images of the "
    "classes that the run was trained on",
  )
  verb.add_argument(
    "--license",
    default="",
    metavar="ID",
    help="what the model card of huggingface states, such as apache-2.0",
  )


def _add_out(verb: argparse.ArgumentParser) -> None:
  verb.add_argument(
    "--out",
    type=paths.absolute,
    required=True,
    metavar="DIR",
    help="folder to write; an earlier import or export there is replaced",
  )
