"""Records what a preparation will write, so that it goes on with the same."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Sequence

from input_pipeline import locks, tfds_metadata, whole_files
from input_pipeline.errors import UsageError
from input_pipeline.prepare.collecting import Item


def place(item: Item) -> bytes:
  """Key that orders a split: mixed, and the same for the same names."""
  return hashlib.blake2b(item.name.encode(), digest_size=16).digest()


def agreed(classes: Sequence[str], folder: str) -> Sequence[str]:
  """The classes of the splits prepared before, which this one must share.

  If there are none yet, they are `classes`.
  """
  known = tfds_metadata.classes_of(folder)
  if known is None:
    return classes
  if bool(known) != bool(classes):
    raise UsageError(
      f"{folder} was prepared {'with' if known else 'without'} classes; every "
      "split must have them, or none."
    )
  if strange := sorted(set(classes) - set(known)):
    raise UsageError(
      f"{folder} was prepared with {len(known)} classes, and {strange[0]!r} is "
      "none of them. Prepare all splits from folders of the same classes, or "
      "another --name."
    )
  return known


def digest(
  items: Sequence[Item],
  classes: Sequence[str],
  keep_duplicates: bool,
  longest_side: int | None,
) -> str:
  """Digest of what is to be written."""
  plan = hashlib.blake2b(digest_size=16)
  for item in items:
    plan.update(f"{item.name}\0{item.class_name}\0{item.size}\n".encode())
  plan.update(f"{list(classes)}{keep_duplicates}".encode())
  if longest_side:  # sets that were prepared before this option have none
    plan.update(f"longest side {longest_side}".encode())
  return plan.hexdigest()


def work_folder(folder: str, split: str) -> str:
  """Path of the folder that keeps what is known until a split is finished."""
  return os.path.join(folder, f"preparing-{split}")


def begin(work: str, plan: str) -> None:
  """Stores the digest; raises UsageError if another plan was begun here."""
  os.makedirs(work, exist_ok=True)
  path = os.path.join(work, "plan")
  if os.path.exists(path):
    with open(path) as file:
      if file.read() != plan:
        raise UsageError(
          f"{work} holds a preparation of other images, or of these with other "
          "options, that was not finished; remove the folder above it, or give "
          "another --name."
        )
  else:
    whole_files.write_text(path, plan)


def forget(work: str) -> None:
  """Removes what a kill has left of a split that is finished."""
  if os.path.isdir(work):
    with (
      contextlib.suppress(locks.TakenError),  # its holder removes it
      locks.taken(os.path.join(work, "lock")),
    ):
      shutil.rmtree(work)
