import numpy as np
from PIL import ImageColor

from byol_flax.reports import neighbour_sheet

RANDOM = np.random.default_rng(5)


def test_images_stand_in_their_cells_and_frames_tell_the_class():
  images = RANDOM.integers(0, 256, (3, 4, 16, 16, 3), np.uint8)
  label = np.array([[0, 0, 1, 0], [2, 1, 2, 2], [1, 1, 1, 1]])
  names = np.array(["cat", "dog with a very long name", "emu"])[label]
  sheet = neighbour_sheet.sheet(
    images, label, RANDOM.random((3, 3)), names.tolist()
  )
  block = np.ones((6, 6, 1), np.uint8)  # 16 pixels become 96
  for row, column in np.ndindex(3, 4):
    rows, columns = neighbour_sheet.cell_box(row, column, 96)
    np.testing.assert_array_equal(
      sheet[rows, columns], np.kron(images[row, column], block)
    )
    if not column:
      color = neighbour_sheet.QUERY
    elif label[row, column] == label[row, 0]:
      color = neighbour_sheet.RIGHT
    else:
      color = neighbour_sheet.WRONG
    frame = sheet[rows.start - 1, columns.start : columns.stop]
    assert (frame == ImageColor.getrgb(color)).all()
    # The caption is there, and does not reach the next cell.
    caption = sheet[rows.stop + 6 : rows.stop + 18]
    assert (caption[:, columns] < 128).any()
    assert (caption[:, columns.stop : columns.stop + 10] == 255).all()
