"""Windows as TensorFlow draws them for SimCLR (paper.md §4.8).

SimCLR's data_util.py asks `tf.image.sample_distorted_bounding_box` for them,
whose rules stand in TensorFlow's sample_distorted_bounding_box_op.cc:

- An attempt draws the aspect uniformly, not its logarithm. It then draws the
  height, uniformly among those at which area and image allow the width that the
  aspect asks for; so small areas are likelier than large ones.
- A window with another area is drawn again, and so is one that covers less than
  a tenth of the box that SimCLR gives (its `min_object_covered`). As that box
  is the whole image, no window is smaller than a tenth of it, whatever the
  range of areas says: SimCLR's 0.08 to 1 becomes 0.1 to 1.
- A window that is smaller than the image never touches its last row or column.
- After a hundred attempts the whole image is taken. That happens where the
  image is so long that no window of the wanted aspect has the wanted area.

Here a view has four numbers for its window. They serve the first attempt. Those
of the next ones come from a generator that the first two numbers of the view
seed, so that no other draw of any view moves, and the window depends on the
view's own numbers alone, wherever it is drawn.
"""

import math

import numpy as np

from input_pipeline import loops

_u64 = np.uint64
_ATTEMPTS = 100  # data_util.py: max_attempts
_WINDOWS = 10  # of the least size make up an image: min_object_covered is 0.1
_UNIT = 9007199254740992.0  # 2^53: a uniform number has 53 bits
_S11, _S27, _S30, _S31 = (_u64(n) for n in (11, 27, 30, 31))
# SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
# generators, 2014).
_STEP = _u64(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = _u64(0xBF58476D1CE4E5B9), _u64(0x94D049BB133111EB)

_compiled = loops.compiled(fastmath=False)


@_compiled
def sample(
  height,
  width,
  u_size,
  u_aspect,
  u_x,
  u_y,
  least_area,
  most_area,
  least_aspect,
  most_aspect,
):
  """The window (y, x, h, w) of a random crop.

  Args:
    height: of the image.
    width: of the image.
    u_size: from 0 to 1, like the next three; for the height of the window.
    u_aspect: for w / h.
    u_x: for x.
    u_y: for y.
    least_area: of h w / (height width).
    most_area: the same.
    least_aspect: of w / h, up to the rounding of w.
    most_aspect: the same.
  """
  whole = height * width
  state = _u64(u_size * _UNIT) ^ (_u64(u_aspect * _UNIT) << _S11)
  for _ in range(_ATTEMPTS):
    aspect = least_aspect + u_aspect * (most_aspect - least_aspect)
    h, w = _size(
      height, width, u_size, aspect, least_area * whole, most_area * whole
    )
    if h * w * _WINDOWS >= whole:
      return int(u_y * (height - h)), int(u_x * (width - w)), h, w
    state, u_size = _next(state)
    state, u_aspect = _next(state)
    state, u_x = _next(state)
    state, u_y = _next(state)
  return 0, 0, int(height), int(width)


@_compiled
def _size(height, width, u, aspect, least, most):
  """h and w of one attempt, zeros if there are none (`GenerateRandomCrop`)."""
  h = int(np.rint(math.sqrt(least / aspect)))
  most_h = int(np.rint(math.sqrt(most / aspect)))
  if np.rint(most_h * aspect) > width:
    most_h = int((width + 0.5 - 1e-7) / aspect)
    if np.rint(most_h * aspect) > width:
      most_h -= 1
  most_h = min(most_h, height)
  h = min(h, most_h)
  h += int(u * (most_h - h + 1))
  w = int(np.rint(h * aspect))
  # The rounding may have led just out of the range.
  if h * w < least:
    h += 1
    w = int(np.rint(h * aspect))
  if h * w > most:
    h -= 1
    w = int(np.rint(h * aspect))
  if h * w < least or h * w > most or h > height or w > width:
    return 0, 0
  return h, w


@_compiled
def _next(state):
  """The next state of the generator, and a number from 0 to 1."""
  state += _STEP
  word = (state ^ (state >> _S30)) * _MIX1
  word = (word ^ (word >> _S27)) * _MIX2
  word ^= word >> _S31
  return state, (word >> _S11) / _UNIT
