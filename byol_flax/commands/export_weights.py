"""`byol export`: an encoder, or a whole state, for other programs."""

import argparse
import functools
import os

from byol_flax.commands import libraries
from input_pipeline.errors import UsageError


def settle() -> None:
  """Prepares a command that computes little, and that in full precision.

  It takes the CPU: an accelerator would multiply in fewer digits, and the
  devices of a slice would wait for all its hosts.
  """
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  libraries.settle()


def run(options: argparse.Namespace) -> int:
  """Writes the folder, and prints the proof."""
  where = options.encoder
  if where is None or where.startswith("random"):
    raise UsageError(
      "`byol export` needs --encoder=ENCODER, the workdir of a run or a weight "
      f"file, but got {where or 'none'}; an encoder that was never trained has "
      "nothing to give."
    )
  settle()
  from byol_flax.weights import exporting, opening, own_runs

  if options.state and options.format not in exporting.WHOLE:
    raise UsageError(
      f"--format={options.format} holds an encoder only; --state goes with "
      f"--format={' and --format='.join(exporting.WHOLE)}."
    )
  if options.classifier and options.format != "huggingface":
    raise UsageError(
      f"--format={options.format} takes no --classifier; it goes with "
      "--format=huggingface, as ResNetForImageClassification."
    )
  file = opening.file_of(where)
  if file:
    found, metrics = opening.open_weights(file), {}
  else:
    whole = options.state or options.classifier
    found = own_runs.read(where, "--encoder", whole=whole)
    metrics = own_runs.metrics(where, found.step or 0)
  exporting.run(
    found,
    options.out,
    form=options.format,
    whole=options.state,
    about={
      "license": options.license,
      "metrics": metrics,
      "data": found.details.get("trained_on"),
      **found.details,
    },
    tell=functools.partial(print, flush=True),
    source=file or "",
    classifier=options.classifier,
  )
  return 0
