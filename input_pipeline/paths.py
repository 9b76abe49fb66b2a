"""Makes the paths that people write absolute, once, where they come in."""

import os

# Kinds of data sets whose name ends in a path: `folder:/data/pets`. In any
# other name a version of TFDS follows the colon.
FOLDERS = ("folder", "unlabelled")


def absolute(path: str) -> str:
  """`path` from the root on, with `~` and `~user` expanded.

  gs://BUCKET/PATH stays, and so does "", which stands for none.
  """
  if not path or path.startswith("gs://"):
    return path
  return os.path.abspath(os.path.expanduser(path))


def of_data_set(name: str) -> str:
  """The name of a data set with its path, if it has one, made absolute."""
  kind, colon, path = name.partition(":")
  if not colon or kind not in FOLDERS:
    return name
  return f"{kind}:{absolute(path)}"


def of_encoder(text: str) -> str:
  """The name of an encoder: a path made absolute, or random:CONFIG as it is."""
  random = text == "random" or text.startswith("random:")
  return text if random else absolute(text)


def of_split(text: str) -> str:
  """FOLDER:SPLIT with an absolute folder; a text without a colon stays."""
  folder, colon, split = text.rpartition(":")
  return f"{absolute(folder)}:{split}" if colon else text
