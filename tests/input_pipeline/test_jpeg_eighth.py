"""JPEGs decoded at 1/8 by our own loops, beside libjpeg."""

import cv2
import numpy as np
import pytest
import simplejpeg

from input_pipeline import decoding, jpeg, jpeg_eighth
from input_pipeline.decoding import ImageError
from tests.hostile import blank, flip_bits, splice, truncate
from tests.input_pipeline.test_decoding import exif
from tests.input_pipeline.test_decoding import jpeg as pillow_jpeg

SAMPLINGS = {
  "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
  "4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
  "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
  "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
  "4:1:1": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}


def picture(rng, least=9, most=150):
  height, width = rng.integers(least, most, 2)
  noise = rng.integers(0, 256, (height, width, 3), np.uint8)
  return cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.1, 3))


def encode(image, sampling="4:2:0", quality=92, **options):
  flags = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling]]
  flags += [cv2.IMWRITE_JPEG_QUALITY, quality]
  for name, value in options.items():
    flags += [getattr(cv2, f"IMWRITE_JPEG_{name.upper()}"), value]
  return cv2.imencode(".jpg", image, flags)[1].tobytes()


def by_libjpeg(data):
  height, width, _, _ = simplejpeg.decode_jpeg_header(data)
  least = {"min_height": -(-height // 8), "min_width": -(-width // 8)}
  return simplejpeg.decode_jpeg(data, "RGB", fastdct=True, **least)


@pytest.mark.parametrize("sampling", ["4:4:4", "4:4:0", "4:2:2", "4:2:0"])
@pytest.mark.parametrize(
  "options",
  [{}, {"optimize": 1}, {"rst_interval": 1}, {"rst_interval": 7}],
  ids=str,
)
def test_pixels_are_those_of_libjpeg(sampling, options):
  rng = np.random.default_rng(0)
  for quality in (1, 30, 75, 92, 100, 100):
    data = encode(picture(rng), sampling, quality, **options)
    pixels = jpeg_eighth.decode(data)
    np.testing.assert_array_equal(pixels, by_libjpeg(data))
    assert pixels.dtype == np.uint8
    grey = encode(picture(rng)[..., 0], sampling, quality, **options)
    np.testing.assert_array_equal(jpeg_eighth.decode(grey), by_libjpeg(grey))


def test_the_last_row_and_column_of_a_large_photograph():
  rng = np.random.default_rng(1)
  coarse = rng.integers(0, 256, (40, 50, 3), np.uint8)
  image = cv2.resize(coarse, (1237, 963), interpolation=cv2.INTER_CUBIC)
  image[-3:], image[:, -3:] = (250, 5, 90), (5, 250, 30)
  data = encode(image)
  pixels = jpeg_eighth.decode(data)
  assert pixels.shape == (121, 155, 3)
  np.testing.assert_array_equal(pixels, by_libjpeg(data))
  assert pixels[-1, 60, 0] < 150 < pixels[-1, 60, 2]
  np.testing.assert_array_equal(decoding.decode_image(data, eighth), pixels)


def eighth(height, width):
  del height, width
  return 8


def test_headers_of_cameras():
  rng = np.random.default_rng(2)
  image = picture(rng, 40)
  data = pillow_jpeg(image, exif=exif(6), comment=b"a comment")
  expected = by_libjpeg(data)
  np.testing.assert_array_equal(jpeg_eighth.decode(data), expected)
  turned = decoding.decode_image(data, eighth)
  np.testing.assert_array_equal(turned, expected.swapaxes(0, 1)[:, ::-1])
  adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + b"\1"
  data = data[:2] + adobe + data[2:]
  np.testing.assert_array_equal(jpeg_eighth.decode(data), expected)


def test_unusual_files_are_left_to_libjpeg():
  image = picture(np.random.default_rng(3), 40)
  data = encode(image)
  rgb = data[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0" + data[20:]
  unusual = [
    encode(image[:4, :4]),
    encode(image, progressive=1),
    encode(image, "4:1:1"),
    data.replace(b"JFIF\0\1", b"JFIF\0\2"),  # of which libjpeg warns
    rgb,  # with Adobe's marker in place of JFIF's: no YCbCr
    data[:-2] + b"\x55\xff\xd9",  # a byte too many
    data[:-9] + b"\xff\xd9",
    data[:-2],
  ]
  for one in unusual:
    assert jpeg_eighth.decode(one) is None
  assert by_libjpeg(rgb).shape == by_libjpeg(data).shape


def test_the_same_files_count_as_damaged(monkeypatch):
  rng = np.random.default_rng(4)
  outcomes = {"same": 0, "damaged": 0, "ours": 0}
  changes = (flip_bits, flip_bits, blank, splice, truncate)
  for i in range(600):
    sampling = list(SAMPLINGS)[i % len(SAMPLINGS)]
    restarts = {"rst_interval": int(rng.integers(0, 9))}
    sound = encode(picture(rng, 20, 60), sampling, **restarts)
    begin = sound.index(b"\xff\xda") + 14 if i % 3 else 2
    damaged = sound[:begin] + changes[i % 5](sound[begin:-2], rng)
    damaged += b"\xff\xd9"
    outcomes["ours"] += jpeg_eighth.decode(damaged) is not None
    with monkeypatch.context() as without:
      without.setattr(jpeg.jpeg_eighth, "decode", lambda data: None)
      try:
        expected = decoding.decode_image(damaged, eighth)
      except ImageError:
        expected = None
    if expected is None:
      outcomes["damaged"] += 1
      with pytest.raises(ImageError):
        decoding.decode_image(damaged, eighth)
    else:
      outcomes["same"] += 1
      pixels = decoding.decode_image(damaged, eighth)
      np.testing.assert_array_equal(pixels, expected)
  assert min(outcomes.values()) > 30, outcomes


def test_other_sizes_are_left_to_libjpeg(monkeypatch):
  monkeypatch.setattr(jpeg.jpeg_eighth, "decode", None)  # not to be called
  data = encode(picture(np.random.default_rng(5), 40))
  for factor in (1, 2, 4):
    decoding.decode_image(data, lambda height, width, f=factor: f)
