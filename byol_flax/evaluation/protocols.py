"""The table of protocols, and one evaluation by one of them."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, TextIO

import jax
from etils import epath
from jax.sharding import Mesh

from byol_flax.evaluation import (
  depth,
  detection,
  finetune,
  illustrations,
  knn,
  linear,
  place,
  representations,
  segmentation,
  semi_supervised,
  supervised,
  transfer,
)
from byol_flax.evaluation.encoder import Encoder
from byol_flax.evaluation.protocol import Setting
from byol_flax.runs import out_files
from byol_flax.runs import workdir as workdir_lib
from byol_flax.runs.distributed import Processes

# Name of a protocol -> its function: setting -> what was found, for JSON.
PROTOCOLS: dict[str, Callable[[Setting], dict[str, Any]]] = {
  "few_label": representations.run,
  "finetune": finetune.run,
  "transfer": transfer.run,
  "knn": knn.run,
  "linear": linear.run,
  "semi_supervised": semi_supervised.run,
  "supervised": supervised.run,
  "segmentation": segmentation.run,
  "detection": detection.run,
  "depth": depth.run,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
  """What the evaluations of one encoder share.

  Attributes:
    encoder: what is evaluated.
    mesh: where.
    processes: all that take part.
    out: is given the lines of the results.
    console: where progress is shown.
  """

  encoder: Encoder
  mesh: Mesh
  processes: Processes
  out: TextIO
  console: TextIO

  def tell(self, line: str) -> None:
    """Writes a line of a result."""
    self.out.write(f"{line}\n")


def evaluate(
  session: Session, config: Any, workdir: str, *, again: bool
) -> None:
  """Evaluates in a folder of its own, and leaves `result.json` there.

  If the same evaluation has left its result there already, only `again` makes
  another one.

  Raises:
    UsageError: the config does not fit the data or the encoder, or the folder
      holds another evaluation.
    RunError: the evaluation cannot go on.
    PreemptedError: the same call goes on.
  """
  with workdir_lib.taken(workdir, session.processes):
    identity = {
      "config": config.to_dict(),
      "encoder": session.encoder.provenance,
    }
    place.claim(workdir, identity, session.processes)
    path = epath.Path(workdir, place.RESULT)
    # Other processes may not see yet what process 0 has written.
    if again or not session.processes.any(path.exists()):
      write(session, config, workdir, str(path))
    if jax.process_index() == 0:
      illustrations.draw(workdir, session.tell)
    session.processes.wait("pictures drawn")


def write(session: Session, config: Any, workdir: str, path: str) -> None:
  """Evaluates in `workdir`, and writes to `path` what was found and how."""
  began = time.monotonic()
  setting = Setting(
    config=config,
    encoder=session.encoder,
    workdir=workdir,
    mesh=session.mesh,
    processes=session.processes,
    tell=session.tell,
    console=session.console,
  )
  if jax.process_index() == 0:
    place.note_older_makers(workdir)
  found = PROTOCOLS[config.protocol](setting)
  # A start that finds all that was kept has made nothing.
  *earlier, last = place.makers_of(workdir) or [setting.maker]
  card = {
    "protocol": config.protocol,
    "encoder": session.encoder.provenance,
    "config": config.to_dict(),
    **last,
    "also_made_by": earlier,
    "seconds": round(time.monotonic() - began, 1),
  }
  if jax.process_index() == 0:
    out_files.write_json(path, {**card, **found})
  session.tell(f"Written to {path}")
