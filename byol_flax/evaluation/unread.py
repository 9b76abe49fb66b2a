"""Images that an evaluation could not read, and that may be mended since."""

import math

from etils import epath

from byol_flax.evaluation import place
from input_pipeline import unreadable

_TRAIN, _VALID = "train_split", "valid_split"


def began_with(workdir: str, key: str) -> dict[str, int]:
  """Files of a split that could not be read, see `sources.open_source`.

  A training on train and valid together counts the images of valid after those
  of train. Splits of one fingerprint lie in one folder, so what was found in
  one of them holds for the others.

  Args:
    workdir: of the evaluation.
    key: of the config that names the split.
  """
  images = place.images_of(workdir)
  if key not in images and key != _TRAIN:
    return {}
  folder_of = {name: x.get("data_fingerprint") for name, x in images.items()}
  end = images.get(_TRAIN, {}).get("num_examples", math.inf)
  folders = {
    str(path.parent)
    for path in epath.Path(workdir).glob(f"*/{unreadable.FILES}")
  }
  return unreadable.began_with(
    line
    for folder in folders
    for line in unreadable.lines_of(folder)
    if folder_of.get(_TRAIN if line.position < end else _VALID)
    == folder_of.get(key)
  )
