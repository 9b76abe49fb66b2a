"""Checkpoints: state and record of a run, together or not at all.

Only this module and `checkpoint_manager` use Orbax. A checkpoint is labelled
with the completed updates. It holds the state (`ByolState`) and a record, a
JSON object with the config, the data position and the code version.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from etils import epath

from byol_flax.runs import buckets, checkpoint_manager, digest
from byol_flax.runs.distributed import Processes
from input_pipeline import full_disk, retries
from input_pipeline.errors import RunError, StorageError, UnreadableError

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Restored:
  """A checkpoint that was read back.

  Attributes:
    state: in the shape and sharding that was asked for.
    record: the JSON object saved with it.
    damaged: sentences about newer checkpoints that could not be read.
  """

  state: Any
  record: Record
  damaged: tuple[str, ...]


class Checkpoints:
  """The checkpoints of one workdir, `workdir/checkpoints/<step>`.

  Attributes:
    directory: where they are.
    save_on_interrupt: whether the first Ctrl-C saves instead of ending at once.
  """

  def __init__(
    self,
    workdir: str,
    *,
    every_steps: int,
    every_minutes: float,
    keep_last: int,
    keep_every: int,
    processes: Processes,
    save_on_interrupt: bool = False,
    read_only: bool = False,
  ) -> None:
    """Opens or creates the folder and removes what a kill left half-written.

    Args:
      workdir: absolute path, or gs://BUCKET/PATH.
      every_minutes: how long after the beginning of a save the next is due.
      every_steps: updates after which a save is due as well; 0 for none.
      keep_last: how many of the newest checkpoints to keep, at least 2, so that
        one remains when the newest is damaged.
      keep_every: the first checkpoint after each multiple of so many updates is
        kept for good; 0 keeps none of them.
      processes: all that hold the state; each calls every method.
      save_on_interrupt: kept for whoever runs the updates.
      read_only: whether only to look, because another process may be writing;
        nothing is created, cleaned up or moved.
    """
    self.directory = epath.Path(workdir) / "checkpoints"
    self.save_on_interrupt = save_on_interrupt
    self._processes = processes
    self._read_only = read_only
    self._every_steps = every_steps
    self._every_seconds = 60 * every_minutes
    self._last_save = time.monotonic()
    self._owed = False  # whether a save is due that has not begun
    policies: list[Any] = [ocp.checkpoint_managers.LatestN(keep_last)]
    if keep_every:
      policies.append(checkpoint_manager.FirstOfEvery(keep_every))
    self._manager = checkpoint_manager.Manager(
      self.directory,
      item_names=("state", "record"),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(
          policies
        ),
        # `due` decides when to save; Orbax saves whenever it is asked.
        save_decision_policy=ocp.checkpoint_managers.FixedIntervalPolicy(1),
        atomicity_options=ocp.options.AtomicityOptions(
          mode=checkpoint_manager.atomicity_mode(workdir, buckets.mounts())
        ),
        cleanup_tmp_directories=not read_only,
        create=not read_only,
        read_only=read_only,
      ),
    )

  @classmethod
  def reader(cls, workdir: str, processes: Processes | None = None) -> Self:
    """Opens the checkpoints of `workdir` to be looked at only.

    `processes` are all that will `restore` together; by default this one.
    """
    return cls(
      workdir,
      every_steps=0,
      every_minutes=1,
      keep_last=2,
      keep_every=0,
      processes=processes or Processes(),
      read_only=True,
    )

  def due(self, step: int, meeting: bool) -> bool:
    """Whether to save after update `step`, the same on all processes.

    While the last save is not committed yet, the next is put off, so that a
    slow store does not stop the updates. If the save under way has failed, its
    error is raised here.

    Args:
      step: completed updates.
      meeting: whether the processes meet after this update anyway. They must
        meet to agree, because their clocks differ, and so do the moments at
        which they see that a save is committed.
    """
    self._manager.check_for_errors()
    counted = bool(self._every_steps) and step % self._every_steps == 0
    self._owed |= counted
    if not (counted or meeting):
      return False
    if not self._owed:
      elapsed = time.monotonic() - self._last_save
      self._owed = self._processes.any(elapsed >= self._every_seconds)
    return self._owed and not self._processes.any(
      self._manager.is_saving_in_progress()
    )

  def check_room(self, state: Any) -> None:
    """Raises OSError if the disk has no room for `state`, or its shapes."""
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)]
    full_disk.check_room(str(self.directory), sum(sizes))

  def save(self, step: int, state: Any, record: Record) -> None:
    """Starts to write; returns once the state is copied off the devices.

    It first waits until the previous write is committed, and raises its error
    if it failed. It raises OSError if there is no room for this one.
    """
    if self._manager.latest_step() == step:
      return
    self.check_room(state)
    self._last_save = time.monotonic()
    self._owed = False
    sums = digest.leaf_sums(state)
    record = {
      **record,
      "digest": digest.whole(sums),
      "digests": digest.parts(sums),
    }
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record)
      ),
    )

  def steps(self) -> list[int]:
    """Labels of the committed checkpoints, in order."""
    return sorted(self._manager.all_steps(read=True))

  def newest_record(self) -> Record | None:
    """The record of the newest checkpoint that can be read, or None."""
    for label in reversed(self.steps()):
      try:
        return self.record(label)
      except StorageError:
        raise
      except Exception:  # any damage: `restore` tells of it
        continue
    return None

  def record(self, step: int) -> Record:
    """The record of checkpoint `step`; a damaged one raises any error."""
    record = _patiently(
      lambda: ocp.JsonCheckpointHandler().restore(
        self.directory / str(step) / "record", args=ocp.args.JsonRestore()
      )
    )
    return dict(record)

  def shapes(self, step: int) -> dict[str, Any]:
    """Shapes and types of the state of checkpoint `step`; reads no array.

    Returns:
      Nested dict of `jax.ShapeDtypeStruct`; damage raises any error.
    """
    metadata = _patiently(
      lambda: ocp.StandardCheckpointHandler().metadata(
        self.directory / str(step) / "state"
      )
    )
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), metadata.tree
    )

  def restore_part(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
    """Reads a part of the state of checkpoint `step`, and nothing else.

    Args:
      step: which checkpoint.
      abstract: nested dict of `jax.ShapeDtypeStruct` with the shardings wanted,
        a part of `shapes`.

    Raises:
      DamagedError: its arrays are not what was saved. Older checkpoints have
        no digests of parts, so their arrays cannot be checked.
    """
    arguments = ocp.checkpoint_utils.construct_restore_args(abstract)
    try:
      record = self.record(step)
      part = _patiently(
        lambda: ocp.PyTreeCheckpointHandler().restore(
          self.directory / str(step) / "state",
          args=ocp.args.PyTreeRestore(
            item=abstract, restore_args=arguments, partial_restore=True
          ),
        )
      )
    except (jax.errors.JaxRuntimeError, StorageError):
      raise
    # A damaged file can raise any error in the storage layer.
    except Exception as error:
      raise DamagedError(
        f"Checkpoint {step} is damaged ({_first_line(error)})."
      ) from None
    saved = record.get("digests", {})
    for name, found in digest.parts(digest.leaf_sums(part)).items():
      if saved.get(name, found) != found:
        raise DamagedError(
          f"Checkpoint {step} is damaged ({name} differs from the digest saved "
          "with it)."
        )
    return dict(part)

  def restore(
    self, abstract_state: Any, step: int | None = None
  ) -> Restored | None:
    """Reads the newest sound checkpoint; None when there is none.

    If a checkpoint cannot be read, or its content differs from the digest saved
    with it, the one before it is tried. Once one is sound, the damaged ones are
    moved to `checkpoints-damaged/`: they must not stand in the way of the next
    save. If none is, all stay, so that no start takes this for a new run.

    Args:
      abstract_state: tree of `jax.ShapeDtypeStruct` with the shardings wanted.
      step: the only checkpoint to try; by default all are tried.

    Raises:
      DamagedError: there are checkpoints, and none is sound.
      RunError: the processes do not see the same checkpoints.
    """
    labels = self.steps() if step is None else [step]
    if not self._processes.agree(labels):
      raise RunError(
        "All processes should see the same checkpoints, but some see others "
        f"than the first does (here: {labels or 'none'}); every host must see "
        f"all of {self.directory}."
      )
    damaged: list[tuple[int, str]] = []
    for label in reversed(labels):
      state, record, problem = self._read(label, abstract_state)
      if not self._processes.any(bool(problem)):
        if digest.tree_digest(state) == record["digest"]:
          told = [self._pass_over(*found) for found in damaged]
          return Restored(state, record, tuple(told))
        problem = "its content differs from the digest saved with it"
      elif self._processes.any(not problem):
        raise RunError(
          f"Checkpoint {label} can be read by some processes and not by others "
          f"(here: {problem or 'it can'}); every host must see all of "
          f"{self.directory}."
        )
      damaged.append((label, problem))
    if damaged:
      told = [f"Checkpoint {x} is damaged ({why})." for x, why in damaged]
      if not self._read_only:
        told.append(
          "None is sound, so all were left where they are. Give the command "
          f"again if their storage was at fault, or move {self.directory} away "
          "to begin anew."
        )
      raise DamagedError(" ".join(told))
    return None

  def _read(self, label: int, abstract_state: Any) -> tuple[Any, Record, str]:
    """Reads state and record; the third value says why that failed, or is "".

    In Orbax's manager all processes wait for each other, so that one that
    cannot read would leave the others waiting. Its handlers do not wait.
    """
    try:
      record = self.record(label)
      state = _patiently(
        lambda: ocp.StandardCheckpointHandler().restore(
          self.directory / str(label) / "state",
          args=ocp.args.StandardRestore(abstract_state),
        )
      )
    # These are faults of the devices or the storage, not of the file.
    except (jax.errors.JaxRuntimeError, StorageError, MemoryError):
      raise
    except UnreadableError as error:
      return None, {}, str(error)[:200]
    # A damaged file can raise any error in the storage layer.
    except Exception as error:
      return None, {}, _first_line(error)
    return state, record, ""

  def wait(self) -> None:
    """Returns when the last save is committed."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits for the last save and frees the threads."""
    self._manager.close()

  def _pass_over(self, step: int, problem: str) -> str:
    """Moves a damaged checkpoint away, unless this only reads; tells of it."""
    if self._read_only:
      return f"Checkpoint {step} is damaged ({problem})."
    folder = self.directory.parent / "checkpoints-damaged"
    moved = folder / f"{step}-{time.time_ns()}"
    if jax.process_index() == 0:
      folder.mkdir(exist_ok=True)
      (self.directory / str(step)).rename(moved)
    self._processes.wait(f"set aside {step}")
    self._manager.reload()
    return f"Checkpoint {step} is damaged ({problem}); moved to {moved}."


def _first_line(error: Exception) -> str:
  return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _patiently(read: Callable[[], Any]) -> Any:
  """Retries only what is surely a fault of the storage, not damage."""
  return retries.patiently(read, "the checkpoints", unknown=retries.Fault.FILE)


def steps_in(workdir: str) -> list[int]:
  """Labels of the committed checkpoints in `workdir`, [] if it is no run."""
  if not (epath.Path(workdir) / "checkpoints").is_dir():
    return []
  reader = Checkpoints.reader(workdir)
  steps = reader.steps()
  reader.close()
  return steps


class DamagedError(RunError):
  """There are checkpoints, but none can be read."""
