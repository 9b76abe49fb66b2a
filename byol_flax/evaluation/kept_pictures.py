"""What the pictures of an evaluation need, kept while a protocol has it.

Each function writes an .npz file in the folder of the evaluation, from which
`illustrations` draws after the result.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from byol_flax.evaluation import place
from byol_flax.reports import confusion
from input_pipeline import whole_files

# Names of what is kept, and of pictures.
NEIGHBOURS, PROJECTION = "neighbours", "projection"
GUESSES, CONFUSION = "guesses", "confusion"


def wanted(workdir: str) -> bool:
  """Whether pictures are made here: in the folder of an evaluation only.

  An evaluation that leaves its summary in the folder of a run draws nothing
  there, because the next checkpoint's would take the place of its pictures.
  """
  return epath.Path(workdir, place.IDENTITY).exists()


def keep_guesses(
  workdir: str,
  name: str,
  true: np.ndarray,
  guess: np.ndarray,
  class_names: Sequence[str],
  about: str = "",
) -> list[dict[str, Any]]:
  """Keeps guesses on test for the picture of the confusion matrix.

  Every process calls this; process 0 writes.

  Args:
    workdir: of the evaluation.
    name: of the row that the guesses are of; "" if there is only one.
    true: int [N]; rows with -1 do not count.
    guess: int [N].
    class_names: of all classes.
    about: what made the guesses, for the title.

  Returns:
    The most frequent mistakes, see `confusion.largest`.
  """
  known = true >= 0
  true, guess = true[known].astype(np.int32), guess[known].astype(np.int32)
  if jax.process_index() == 0 and wanted(workdir):
    end = f"-{name}" if name else ""
    keep(
      workdir,
      f"{GUESSES}{end}",
      {
        "true": true,
        "guess": guess,
        "class_names": np.array(class_names),
        "about": np.array(about),
      },
      picture=f"{CONFUSION}{end}",
    )
  return confusion.largest(true, guess, class_names)


def keep(
  workdir: str, name: str, arrays: dict[str, np.ndarray], *, picture: str
) -> None:
  """Writes `name.npz`, and removes a picture of what was there before."""
  forget(workdir, picture)
  whole_files.write_arrays(epath.Path(workdir, f"{name}.npz"), arrays)


def forget(workdir: str, picture: str) -> None:
  """Removes a picture, because what it shows is about to be written anew."""
  epath.Path(workdir, f"{picture}.png").unlink(missing_ok=True)
