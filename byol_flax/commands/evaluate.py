"""`byol evaluate`: evaluates an encoder by the protocol of a config."""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from byol_flax.commands import config_bounds, config_file, together
from byol_flax.runs.distributed import Processes
from input_pipeline.errors import UsageError

# JAX is imported within the functions, so that SIGTERM has a handler before.


def protocols() -> dict[str, Callable[[Any], dict[str, Any]]]:
  """Name of a protocol -> its function: setting -> what was found, for JSON."""
  from byol_flax.evaluation import (
    finetune,
    knn,
    linear,
    representations,
    semi_supervised,
    supervised,
    transfer,
  )

  return {
    "few_label": representations.run,
    "finetune": finetune.run,
    "transfer": transfer.run,
    "knn": knn.run,
    "linear": linear.run,
    "semi_supervised": semi_supervised.run,
    "supervised": supervised.run,
  }


def run(options: argparse.Namespace, config: Any, sigterms: list[int]) -> int:
  """Evaluates, and writes what was found and all that it depends on.

  The result is `result.json` in the evaluation's own workdir. Without --encoder
  the workdir is a run's: its newest checkpoint is evaluated, and the result is
  `summary.json` in that workdir.
  """
  with (
    together.started(options, config, sigterms) as (processes, index),
    contextlib.ExitStack() as stack,
  ):
    nowhere = stack.enter_context(open(os.devnull, "w"))
    _evaluate(
      options,
      config,
      processes,
      out=nowhere if index else sys.stdout,
      console=nowhere if index else sys.stderr,
    )
  return 0


def _evaluate(
  options: argparse.Namespace,
  config: Any,
  processes: Processes,
  *,
  out: TextIO,
  console: TextIO,
) -> None:
  """Does one process's part."""
  import jax

  from byol_flax import sharding
  from byol_flax.evaluation import encoder as encoder_lib
  from byol_flax.evaluation import protocol
  from byol_flax.runs import out_files
  from byol_flax.runs.version import code_version

  mesh = sharding.make_mesh()
  began = time.monotonic()
  encoder = encoder_lib.open_encoder(
    options.encoder or options.workdir, mesh, read_config=read_run_config
  )

  def tell(line: str) -> None:
    out.write(f"{line}\n")

  with _result_file(options, config, encoder, processes) as path:
    found = protocols()[config.protocol](
      protocol.Setting(
        config=config,
        encoder=encoder,
        workdir=options.workdir,
        mesh=mesh,
        processes=processes,
        tell=tell,
        console=console,
      )
    )
    card = {
      "protocol": config.protocol,
      "encoder": encoder.provenance,
      "config": config.to_dict(),
      "code_version": code_version(),
      "devices": sharding.describe(mesh),
      "seconds": round(time.monotonic() - began, 1),
    }
    if jax.process_index() == 0:
      out_files.write_json(path, {**card, **found})
  tell(f"Written to {path}")


@contextlib.contextmanager
def _result_file(
  options: argparse.Namespace,
  config: Any,
  encoder: Any,
  processes: Processes,
) -> Iterator[str]:
  """Yields the result's path; within the block no other may use the folder."""
  from etils import epath

  from byol_flax.evaluation import place
  from byol_flax.runs import workdir as workdir_lib

  if options.encoder is None:
    yield str(epath.Path(options.workdir, "summary.json"))
    return
  identity = {"config": config.to_dict(), "encoder": encoder.provenance}
  with workdir_lib.taken(options.workdir):
    place.claim(options.workdir, identity, processes)
    yield str(epath.Path(options.workdir, place.RESULT))


def read_run_config(text: str) -> Any:
  """The CONFIG of --encoder=random:CONFIG."""
  config = config_file.load_config([f"--config={text}"])
  if config_bounds.evaluates(config):
    raise UsageError(
      f"--encoder=random:{text}: expected a config of pre-training, such as "
      "configs/byol_digits.py, but this is one of an evaluation."
    )
  return config
