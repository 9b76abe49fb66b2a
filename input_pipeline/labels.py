"""Checks that images have the labels that an evaluation needs."""

import os

from input_pipeline.errors import UsageError
from input_pipeline.sources import Source

_TOLD = 3  # how many images a message names


def check_labelled(source: Source, setting: str) -> str:
  """A sentence if some images have no label and so do not count, or "".

  Args:
    source: the images to evaluate on.
    setting: the one that names them, such as "evaluation.split=test".

  Raises:
    UsageError: no image has a label.
  """
  without = source.unlabelled()
  if not len(without):
    return ""
  names = ", ".join(source.example_name(int(i)) for i in without[:_TOLD])
  more = ", ..." if len(without) > _TOLD else ""
  if len(without) < len(source):
    return (
      f"{setting}: {len(without)} of {len(source)} images of {source.name} "
      f"have no class and do not count: {names}{more}"
    )
  raise UsageError(
    f"{setting} needs images with classes, but of the {len(source)} images of "
    f"split {source.split} of {source.name} none has one: {names}{more}. "
    f"{_way_out(source)} or name a split that has classes, such as a part of "
    "another one, train[-10%:]."
  )


def _way_out(source: Source) -> str:
  if file := source.file_of(0):
    root = source.example_name(0).removesuffix(file[0]).rstrip(os.sep)
    return f"Put each into the folder of its class, {root}/CLASS/,"
  return "Prepare the split with its classes,"
