"""Starts the controller: `python3 launch/controller PROGRAM ARGUMENT ...`.

The controller needs Python 3.9 and nothing but its standard library, because it
runs on a laptop on which our environment need not be installed.
"""

import pathlib
import sys

# Python puts this folder first; `launch` lies two above it, and must be found
# before any other package of that name.
sys.path[0] = str(pathlib.Path(__file__).resolve().parents[2])

from launch.controller import commands  # noqa: E402

if __name__ == "__main__":
  sys.exit(commands.main(sys.argv[1], sys.argv[2:]))
