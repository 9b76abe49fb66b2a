"""The error of files that hold no weights, or not those that they should."""

from input_pipeline.errors import UsageError


class WeightsError(UsageError):
  """A weight file is damaged, refused, or of another network.

  Its text says what is wrong with the file, and begins with a capital letter;
  whoever opened the file puts its name before it.
  """
