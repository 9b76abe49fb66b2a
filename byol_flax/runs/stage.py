"""Copies the shards of a run to its hosts before it trains."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

from byol_flax.runs import data_sets
from byol_flax.runs.distributed import Processes
from input_pipeline import staging
from input_pipeline.errors import UsageError

_LOOK_SECONDS = 1.0
_TELL_SECONDS = 30.0


def stage(
  config: Any, processes: Processes, tell: Callable[[str], None]
) -> bool:
  """Returns when every host has a verified copy, if the config wants one.

  The processes of a host share a copy: one of them makes it. A copy that is
  complete is used again, and one that was cut off is gone on with.

  Args:
    config: as made by configs/byol.py.
    processes: all of the run; each calls this.
    tell: is given a sentence about this host at the beginning, about twice a
      minute, and at the end.

  Returns:
    Whether the config wants a copy.

  Raises:
    UsageError: the images are not in shards, a split is absent, or they do not
      fit.
    StorageError: their storage does not answer.
    PreemptedError: a process was told to end; what is copied stays.
  """
  place = _place_of(config)
  if place is None:
    return False
  begun = told = time.monotonic()
  tell(f"staging {place.inner} from {place.folder} to {place.copy}")
  copying = staging.Staging(place)
  processes.at(0, "staging")
  with contextlib.ExitStack() as stack:
    stack.callback(copying.stop)
    ended, came = False, 0
    # All look equally often, so that all hear of a preemption together.
    while processes.any(not ended):
      processes.check_preempted()
      before, ended = ended, copying.wait(_LOOK_SECONDS)
      # Not at each look, or a host whose storage hangs would seem to move.
      if ended and not before:
        processes.at(0, "setting up after staging")
      elif copying.bytes_done > came:
        processes.moved()
      came = copying.bytes_done
      if time.monotonic() - told >= _TELL_SECONDS:
        told = time.monotonic()
        tell(f"staging: {copying.sentence()}")
  seconds = time.monotonic() - begun
  new = f"{copying.bytes_wanted / 1e9:.1f} GB"
  tell(
    f"staged in {seconds:.0f} s, {new} of it new here; every host has its copy"
  )
  return True


def _place_of(config: Any) -> staging.Place | None:
  """What of the splits that this run reads shall be copied where.

  Images without labels are not evaluated (`online.open_evaluation`), so then
  the evaluation's splits are neither copied nor have to be there.
  """
  place = data_sets.place_of(config, config.data.split)
  if place is None or not data_sets.open_split(config).num_classes:
    return place
  shards = place.shards
  for setting in ("split", "bank_split"):
    try:
      other = data_sets.place_of(config, config.evaluation[setting])
    except UsageError as error:  # before hours of copying, not after
      raise UsageError(f"evaluation.{setting}: {error}") from None
    shards |= other.shards if other else frozenset()
  return dataclasses.replace(place, shards=shards)
