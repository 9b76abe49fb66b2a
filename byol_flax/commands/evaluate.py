"""`byol evaluate`: an encoder, by the protocol that a config names."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from etils import epath

from byol_flax import sharding
from byol_flax.commands import config_bounds, config_file
from byol_flax.evaluation import encoder as encoder_lib
from byol_flax.evaluation import place, protocol, representations
from byol_flax.runs import compilation, devices, out_files
from byol_flax.runs import workdir as workdir_lib
from byol_flax.runs.distributed import Processes
from byol_flax.runs.version import code_version
from input_pipeline.errors import UsageError

# What a config's `protocol` names: (setting) -> what was found, a JSON object.
PROTOCOLS: dict[str, Callable[[protocol.Setting], dict[str, Any]]] = {
  "few_label": representations.run,
}


def run(options: argparse.Namespace, config: Any) -> int:
  """Evaluates, and writes what was found with all that it depends on.

  That is `result.json` in a workdir of the evaluation's own. Without --encoder
  the workdir is that of a run: its newest checkpoint is evaluated, and the
  result is `summary.json` beside it.
  """
  compilation.keep_programs(options.compilation_cache)
  devices.open_devices()
  mesh = sharding.make_mesh()
  began = time.monotonic()
  encoder = encoder_lib.open_encoder(
    options.encoder or options.workdir,
    mesh,
    read_config=read_run_config,
  )
  with _result_file(options, config, encoder) as path:
    found = PROTOCOLS[config.protocol](
      protocol.Setting(
        config=config,
        encoder=encoder,
        workdir=options.workdir,
        mesh=mesh,
        processes=Processes(),
        tell=_tell,
      )
    )
    card = {
      "protocol": config.protocol,
      "encoder": encoder.provenance,
      "config": config.to_dict(),
      "code_version": code_version(),
      "devices": f"{jax.device_count()} {jax.devices()[0].platform}",
      "seconds": round(time.monotonic() - began, 1),
    }
    out_files.write_json(path, {**card, **found})
  _tell(f"Written to {path}")
  return 0


@contextlib.contextmanager
def _result_file(
  options: argparse.Namespace, config: Any, encoder: encoder_lib.Encoder
) -> Iterator[str]:
  """Where the result goes; meanwhile the folder is this evaluation's."""
  if options.encoder is None:
    yield str(epath.Path(options.workdir, "summary.json"))
    return
  identity = {"config": config.to_dict(), "encoder": encoder.provenance}
  with workdir_lib.taken(options.workdir):
    place.claim(options.workdir, identity)
    yield str(epath.Path(options.workdir, place.RESULT))


def read_run_config(text: str) -> Any:
  """The CONFIG of --encoder=random:CONFIG."""
  config = config_file.load_config([f"--config={text}"])
  if config_bounds.evaluates(config):
    raise UsageError(
      f"--encoder=random:{text}: expected a config of pre-training, such as "
      "configs/byol_digits.py, and this is one of an evaluation."
    )
  return config


def _tell(line: str) -> None:
  sys.stdout.write(f"{line}\n")
