"""Writes weights for other programs, and proves what was written."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from byol_flax.weights import (
  arrays,
  artifact,
  huggingface,
  new_folder,
  npz,
  opening,
  other_sides,
  proof,
  torch_export,
)
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Foreign

# Formats that can hold both networks with heads, momentum and step.
WHOLE = ("safetensors", "npz")


def run(
  found: Foreign,
  out: str,
  *,
  form: str,
  whole: bool,
  about: Mapping[str, Any],
  tell: Callable[[str], None],
  source: str = "",
  classifier: bool = False,
) -> None:
  """Writes a folder in one format.

  Args:
    found: what is exported; unless `whole`, its online encoder only.
    out: a new folder; one of an earlier import or export is replaced, once the
      new one is complete and proven.
    form: safetensors, huggingface, npz or jax.
    whole: whether heads, target network, momentum and step are wanted too.
    about: what a model card tells, see `model_card.render`.
    tell: is given the lines of the proof.
    source: the weight file that is exported, if it is one.
    classifier: whether the online classifier is wanted too; huggingface only.

  Raises:
    UsageError: the format cannot hold these weights, there is no classifier,
      the proof fails, or `out` holds something else.
  """
  new_folder.check(out, source)
  head = classifier_of(found) if classifier else None
  if not whole:
    found = encoder_alone(found)
  record: dict[str, Any] = {
    "format": form,
    "holds": "state" if whole else "encoder",
    "step": found.step,
  }
  with new_folder.written(out, record, source) as new:
    _write(found, new, form, whole, about, head)
    if form != "jax":
      file = opening.file_of(new)
      assert file  # it was written just now
      again = npz.leaves(opening.open_weights(file))
      count = proof.check_equal(again, npz.leaves(found))
      tell(f"arrays: {count:,} were read back, the same to the last bit")
    sides = {} if whole else other_sides.of_export(found, form, new)
    record["features"] = proof.show(found, sides, tell)
  tell(f"Written to {out}: {', '.join(sorted(os.listdir(out)))}")


def _write(
  found: Foreign,
  folder: str,
  form: str,
  whole: bool,
  about: Mapping[str, Any],
  head: tuple[np.ndarray, np.ndarray] | None,
) -> None:
  """Fills an empty folder."""
  if form == "npz":
    npz.write(os.path.join(folder, npz.FILE), found)
  elif form == "jax":
    artifact.write(os.path.join(folder, artifact.FILE), found)
  elif form == "huggingface":
    huggingface.write(found, folder, run=about, classifier=head)
  elif whole:
    torch_export.write_state(found, folder)
  else:
    torch_export.write_encoder(found, folder)


def classifier_of(found: Foreign) -> tuple[np.ndarray, np.ndarray]:
  """Kernel [F, K] and bias [K] of the online classifier.

  Raises:
    WeightsError: there is none.
  """
  params = found.networks["online"]["params"]
  if "classifier" not in params:
    raise WeightsError(
      "There is no classifier beside the encoder: it was trained on images "
      "without labels, or its file has left the classifier out. Export it "
      "without --classifier."
    )
  head = arrays.read(params["classifier"])
  return head["kernel"], head["bias"]


def encoder_alone(found: Foreign) -> Foreign:
  """The online encoder, without heads and all else."""
  model = {
    name: section
    for name, section in found.model.items()
    if name not in ("projector", "predictor")
  }
  online = {part: {"encoder": tree} for part, tree in found.encoder.items()}
  return dataclasses.replace(
    found, networks={"online": online}, momentum=None, model=model
  )
