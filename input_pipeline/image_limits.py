"""How large images may be, and the error for those that cannot be decoded."""

# Pillow begins to warn here: 0.25 GB as RGB, and three times that meanwhile.
MAX_PIXELS = 89_478_485
MAX_SIDE = 65_535  # a JPEG's limit; a crop takes memory for a whole row


class ImageError(ValueError):
  """The bytes are no complete image that can be decoded."""


def check_size(width: int, height: int, most: int) -> None:
  """Raises ImageError if an image is too large, before any memory is taken.

  Args:
    width: in pixels, as a header announces it.
    height: the same.
    most: how many pixels the bytes of the file can hold.
  """
  check_honest(width, height, most)
  if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
    raise ImageError(
      f"It has {width} x {height} pixels; at most {MAX_PIXELS} are decoded, "
      f"and {MAX_SIDE} a side. Only JPEG files may have more, because they can "
      "be decoded at 1/2, 1/4 or 1/8 of their size. Make it smaller, or a JPEG."
    )


def check_honest(width: int, height: int, most: int) -> None:
  """Raises ImageError if a header announces more pixels than `most`."""
  if width * height > most:
    raise ImageError(
      f"The header announces {width} x {height} pixels, more than a file of "
      "this length can hold."
    )
