"""`byol` as it runs on a machine that lacks a library.

Command: python -m tests.without LIBRARY train ...
"""

import sys

from byol_flax import main


class Lacking:
  """A finder of modules that finds none of one library."""

  def __init__(self, finder, library):
    self.finder, self.library = finder, library

  def find_spec(self, name, *where):
    if name.split(".")[0] == self.library:
      return None
    return self.finder.find_spec(name, *where)

  def __getattr__(self, name):
    return getattr(self.finder, name)


if __name__ == "__main__":
  library = sys.argv.pop(1)
  sys.meta_path[:] = [Lacking(finder, library) for finder in sys.meta_path]
  main.run()
