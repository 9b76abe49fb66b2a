"""The one exception for mistakes that the user can mend."""


class UsageError(ValueError):
  """A mistake in a config, a flag or the data.

  Its text is one or two sentences: what was expected, what came, what to do.
  `byol` prints the text without a traceback and exits with status 2.
  """
