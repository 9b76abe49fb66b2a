"""`byol prepare --longest-side`."""

import cv2
import numpy as np
import pytest

from byol_flax import main
from input_pipeline import sources
from input_pipeline.errors import UsageError
from tests.input_pipeline.prepare.test_prepare import jpeg, picture, write


def test_large_images_are_made_smaller_once_for_all(tmp_path):
  smooth = picture(0, size=(600, 800))
  files = {
    "large.jpg": cv2.imencode(".jpg", smooth)[1].tobytes(),
    "tall.png": cv2.imencode(".png", smooth.swapaxes(0, 1))[1].tobytes(),
    "small.jpg": jpeg(1),
  }
  source = write(tmp_path / "s", files)
  words = ["prepare", source, str(tmp_path / "out"), "--name=s", "--workers=1"]
  assert main.main([*words, "--longest-side=200"]) == 0
  found = sources.open_source("s", "train", str(tmp_path / "out"))
  images = [found[i]["image"] for i in range(3)]
  assert files["small.jpg"] in images
  sizes = {}
  for data in images:
    assert data.startswith(b"\xff\xd8")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    sizes[pixels.shape[:2]] = pixels
  assert set(sizes) == {(48, 64), (150, 200), (200, 150)}
  expected = cv2.resize(smooth, (200, 150), interpolation=cv2.INTER_AREA)
  for pixels in (sizes[150, 200], sizes[200, 150].swapaxes(0, 1)):
    assert np.abs(pixels.astype(int) - expected).mean() < 2
  # The same command again has nothing to do; others are refused.
  assert main.main([*words, "--longest-side=200"]) == 0
  for other in ([], ["--longest-side=100"]):
    with pytest.raises(UsageError, match="with other options"):
      main.main([*words, *other])
  with pytest.raises(UsageError, match="--longest-side is 0"):
    main.main([*words, "--longest-side=0"])
