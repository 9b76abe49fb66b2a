"""Opens folders that are laid out as Pascal VOC's development kit."""

import os
from collections.abc import Mapping

from input_pipeline import (
  dense_files,
  faults,
  folders,
  retries,
  voc_annotations,
  voc_classes,
  voc_layout,
)
from input_pipeline.dense_files import BoxFiles, Checked
from input_pipeline.errors import UsageError
from input_pipeline.faults import Kind
from input_pipeline.voc_annotations import MalformedError


def open_boxes(
  name: str,
  path: str,
  split: str,
  classes_file: str,
  began_with: Mapping[str, int],
) -> BoxFiles:
  """The images of a list in `ImageSets/Main` with the boxes of their objects.

  Args:
    name: what the source shall be called.
    path: the folder that holds `JPEGImages` and `Annotations`.
    split: names the list.
    classes_file: with one name a line; "": VOC's classes in their order if all
      annotated objects are of these, otherwise all annotated names, sorted.
    began_with: see `dense_sources.open_boxes`.

  Raises:
    UsageError: a folder, the list or the file is absent, or nothing of what is
      listed can be used.
  """
  root = voc_layout.root_of(name, path)
  images = voc_layout.files_by_name(os.path.join(root, voc_layout.IMAGES))
  listed = voc_layout.listed(root, "Main", split, images)
  annotations = os.path.join(root, voc_layout.ANNOTATIONS)
  class_names = (
    voc_classes.read(classes_file)
    if classes_file
    else voc_classes.of_names(_annotated(root))
  )
  if not class_names:
    raise UsageError(
      f"The annotations in {annotations} name no class; expected objects with "
      "names, or a file of names as classes_file."
    )
  numbers = {name: number for number, name in enumerate(class_names)}

  def check(name: str) -> tuple[Checked | None, list[Kind]]:
    if name not in images:
      return None, [Kind.IMAGE_MISSING]
    image = os.path.join(voc_layout.IMAGES, images[name])
    looked = dense_files.look_at_image(root, image, began_with)
    if isinstance(looked, Kind):
      return None, [looked]
    try:
      annotation = _annotation(root, f"{name}.xml")
    except FileNotFoundError:
      return None, [Kind.ANNOTATION_MISSING]
    except MalformedError:
      return None, [Kind.ANNOTATION_MALFORMED]
    if annotation.size not in (None, looked.size):
      return None, [Kind.SIZE_DISAGREES]
    boxes, kinds = voc_annotations.boxes(annotation, numbers, looked.size)
    return looked._replace(label=boxes, digest=boxes.tobytes()), kinds

  kept, found = faults.look_through(listed, check, lambda name: name)
  return BoxFiles(name, split, root, kept, class_names, found)


def _annotation(root: str, file: str) -> voc_annotations.Annotation:
  path = os.path.join(root, voc_layout.ANNOTATIONS, file)
  try:
    return voc_annotations.parse(folders.read_below(root, path))
  except FileNotFoundError:
    raise
  except OSError as error:
    if retries.fault_of(error) is not retries.Fault.FILE:
      raise
    raise MalformedError(str(error)) from error


def _annotated(root: str) -> set[str]:
  """The names of all objects in all annotations that are sound."""
  names = set()
  folder = os.path.join(root, voc_layout.ANNOTATIONS)
  for file in voc_layout.files_by_name(folder, [".xml"]).values():
    try:
      objects = _annotation(root, file).objects
    except MalformedError:
      continue
    names |= {thing.name for thing in objects}
  return names - {""}
