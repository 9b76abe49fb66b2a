"""How large images may be, and the error of those that cannot be decoded."""

# At which Pillow begins to warn: 0.25 GB of RGB, three times that meanwhile.
MAX_PIXELS = 89_478_485
MAX_SIDE = 65_535  # what a JPEG can have; crops take memory for a whole row


class ImageError(ValueError):
  """The bytes are no complete image that can be decoded."""


def check_size(width: int, height: int, most: int) -> None:
  """Raises ImageError for what is too large, before anything is allocated.

  Args:
    width: in pixels, as a header announces it.
    height: the same.
    most: pixels that the bytes of the file can hold.
  """
  check_honest(width, height, most)
  if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
    raise ImageError(
      f"It has {width} x {height} pixels; at most {MAX_PIXELS} are decoded, "
      f"{MAX_SIDE} a side, except of JPEG files, which are decoded at 1/2, 1/4 "
      "or 1/8 of their size. Make it smaller, or a JPEG."
    )


def check_honest(width: int, height: int, most: int) -> None:
  """Raises ImageError if a header announces more pixels than `most`."""
  if width * height > most:
    raise ImageError(
      f"The header announces {width} x {height} pixels, more than a file of "
      "this length can hold."
    )
