"""Generated data sets for dense tasks, and encoders that learn them fast."""

import cv2
import jax
import numpy as np
from PIL import Image

from byol_flax.evaluation import encoder
from configs import byol
from tests.input_pipeline import voc_folders

COLOURS = {"blue": (20, 60, 230), "red": (230, 60, 20)}
SHAPES = ("background", "square", "disc", "stripe")


def encoder_of(
  mesh, architecture, *, stem="imagenet", size=33, dtype="float32"
):
  """Untrained, as --encoder=random:CONFIG gives it."""
  config = byol.get_config()
  config.model.encoder.update(architecture=architecture, stem=stem, width=1)
  config.augment.size = size
  config.dtype = dtype
  return encoder.open_encoder("random:x", mesh, read_config=lambda path: config)


def spoilt(state, part):
  """A state whose part of a network has one weight that is no number."""
  leaves, tree = jax.tree.flatten(state.params[part])
  leaves[0] = leaves[0].ravel().at[0].set(np.nan).reshape(leaves[0].shape)
  params = {**state.params, part: jax.tree.unflatten(tree, leaves)}
  return state.replace(params=params)


def shapes_folder(folder, *, train, test, size=(37, 45)):
  """A VOC folder of coloured shapes on noise, with void lines around them."""
  for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
    (folder / name).mkdir(parents=True)
  (folder / "classes.txt").write_text("\n".join(SHAPES))
  rng = np.random.default_rng(21)
  for split, count in (("train", train), ("test", test)):
    names = [f"{split}{i:02}" for i in range(count)]
    for name in names:
      image, mask = _shapes(rng, size)
      # PNG by another name: the pixels of a JPEG would depend on its library.
      Image.fromarray(image).save(folder / "JPEGImages" / f"{name}.png")
      Image.fromarray(mask).save(folder / "SegmentationClass" / f"{name}.png")
    lists = folder / "ImageSets" / "Segmentation"
    (lists / f"{split}.txt").write_text("\n".join(names))
  return f"voc:{folder}"


def _shapes(rng, size):
  """An image, uint8 [H, W, 3], and its classes, uint8 [H, W]."""
  image = rng.integers(0, 90, (*size, 3)).astype(np.uint8)
  mask = np.zeros(size, np.uint8)
  for _ in range(2):
    kind = int(rng.integers(1, len(SHAPES)))
    drawn = np.zeros(size, np.uint8)
    y, x = (int(rng.integers(8, most - 8)) for most in size)
    if kind == 1:
      drawn[y - 6 : y + 6, x - 6 : x + 6] = 1
    elif kind == 2:
      cv2.circle(drawn, (x, y), 7, 1, -1)
    else:
      drawn[y - 3 : y + 3] = 1
    color = np.zeros(3)
    color[kind - 1] = rng.integers(160, 255)
    image[drawn > 0] = color
    edge = cv2.dilate(drawn, np.ones((3, 3), np.uint8)) - drawn
    mask[drawn > 0] = kind
    mask[edge > 0] = 255
  return image, mask


def rectangles_folder(folder, split, count, seed):
  """Images of one or two coloured rectangles on a grey ground.

  A detector sees them at half their size, so a test notices if boxes are not
  taken back to pixels of the files.
  """
  rng = np.random.default_rng(seed)
  names = []
  for i in range(count):
    # Two of three are landscapes.
    height, width = (64, 72) if i % 3 else (72, 64)
    image = (
      rng.integers(90, 160, (height, width, 1)).astype(np.uint8).repeat(3, 2)
    )
    things = []
    for _ in range(rng.integers(1, 3)):
      h, w = rng.integers(14, 30, 2)
      y, x = rng.integers(0, height - h), rng.integers(0, width - w)
      name = rng.choice(list(COLOURS))
      image[y : y + h, x : x + w] = COLOURS[name]
      box = (2 * x + 1, 2 * y + 1, 2 * (x + w), 2 * (y + h))
      things.append(voc_folders.thing(box, name))
    names.append(f"{split}{i}")
    image = image.repeat(2, 0).repeat(2, 1)
    voc_folders.write_bytes(
      folder,
      f"JPEGImages/{names[-1]}.jpg",
      voc_folders.jpeg(image.astype(np.uint8)),
    )
    xml = voc_folders.annotation(*things, size=image.shape[:2])
    voc_folders.write_boxes(folder, names[-1], xml)
  voc_folders.write_list(folder, "Main", split, names)


def depth_folder(folder, *, train, test):
  """Frames 640 × 480 whose brightness falls with depth, with holes in it.

  Both splits begin with the same frames.
  """
  for split, count in (("train", train), ("test", test)):
    rng = np.random.default_rng(22)
    (folder / split).mkdir(parents=True)
    for i in range(count):
      corners = rng.uniform(800, 4500, (3, 4)).astype(np.float32)
      depth = cv2.resize(corners, (640, 480)).round().astype(np.uint16)
      grey = (255 - depth / 20)[..., None] + rng.normal(0, 4, (480, 640, 3))
      image = grey.clip(0, 255).astype(np.uint8)
      depth[100:140, 50 * i : 50 * i + 60] = 0
      depth[300:320, 400:500] = 65535
      cv2.imwrite(str(folder / split / f"{i}.png"), image)
      cv2.imwrite(str(folder / split / f"{i}.depth.png"), depth)
  return f"depth:{folder}"
