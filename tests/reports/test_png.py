import numpy as np
from PIL import Image

from byol_flax.reports import png

RANDOM = np.random.default_rng(0)


def test_a_png_holds_the_image_and_leaves_no_other_file(tmp_path):
  image = RANDOM.integers(0, 256, (7, 9, 3), np.uint8)
  path = tmp_path / "new" / "views.png"
  png.save_png(str(path), image)
  np.testing.assert_array_equal(np.array(Image.open(path)), image)
  assert list(path.parent.iterdir()) == [path]
