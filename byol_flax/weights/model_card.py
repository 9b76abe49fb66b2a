"""The model card of an exported encoder: a README.md with a header."""

import json
from collections.abc import Mapping
from typing import Any

from byol_flax.models import resnet
from byol_flax.weights import torch_export
from byol_flax.weights.foreign import Foreign

_MODEL = """```python
import torch, transformers
from PIL import Image

processor = transformers.AutoImageProcessor.from_pretrained("FOLDER")
model = transformers.AutoModel.from_pretrained("FOLDER")
inputs = processor(Image.open("photo.jpg"), return_tensors="pt")
with torch.no_grad():
  features = model(**inputs).pooler_output.flatten(1)  # [1, {size}]
```"""
_CLASSIFIER = """```python
import torch, transformers
from PIL import Image

processor = transformers.AutoImageProcessor.from_pretrained("FOLDER")
model = transformers.AutoModelForImageClassification.from_pretrained("FOLDER")
inputs = processor(Image.open("photo.jpg"), return_tensors="pt")
with torch.no_grad():
  label = model(**inputs).logits.argmax(-1)  # one of {classes} classes
```"""


def render(
  foreign: Foreign, run: Mapping[str, Any], *, classes: int | None
) -> str:
  """The text of a model card.

  Args:
    foreign: the exported weights.
    run: what is known of their training, for JSON. "license" is an identifier
      of Hugging Face, such as "apache-2.0"; without it the card says that the
      licence is not stated. "metrics" maps names to numbers, "data" describes
      the images, and "config" is the config of the run. Anything else is
      listed too. All may be absent.
    classes: of the classifier, if there is one.
  """
  encoder = foreign.model["encoder"]
  name = resnet.name_of(torch_export.architecture_of(foreign))
  if encoder["width"] != 1:
    name = f"{encoder['architecture']} ×{encoder['width']:g}"
  size = torch_export.architecture_of(foreign).channels[-1]
  task = (
    "image-feature-extraction" if classes is None else "image-classification"
  )
  usage = _MODEL if classes is None else _CLASSIFIER
  lines = [
    "---",
    f"license: {json.dumps(run.get('license') or 'unknown')}",
    "library_name: transformers",
    f"pipeline_tag: {task}",
    "tags: [byol, self-supervised, resnet]",
    "---",
    "",
    f"# {name}{foreign.training}",
    "",
    f"A ResNet encoder that maps images of {foreign.image_size} × "
    f"{foreign.image_size} pixels to {size} features.",
    *(
      [
        "It was trained without labels by *Bootstrap Your Own Latent* (arXiv "
        "2006.07733)."
      ]
      if foreign.details.get("trained_by") == "byol"
      else []
    ),
    "",
    *usage.format(size=size, classes=classes).splitlines(),
    "",
    "The processor antialiases what it shrinks; `byol features` and `byol "
    "evaluate` do not, so that their features of a photograph differ from "
    "these by some percent of the largest.",
  ]
  if foreign.step is not None:
    lines += ["", f"Updates of the training: {foreign.step:,}."]
  if not run.get("license"):
    lines += ["", "The licence of these weights is not stated."]
  if metrics := run.get("metrics"):
    lines += ["", "## Metrics", "", "| metric | value |", "|---|---|"]
    lines += [f"| {_cell(k)} | {_cell(v)} |" for k, v in metrics.items()]
  for key, title in (("data", "Training data"), ("config", "Config")):
    if value := run.get(key):
      lines += ["", f"## {title}", "", *_json(value)]
  told = ("license", "metrics", "data", "config")
  if rest := {key: value for key, value in run.items() if key not in told}:
    lines += ["", "## Origin", "", *_json(rest)]
  return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
  text = f"{value:.4g}" if isinstance(value, float) else str(value)
  return text.replace("|", "\\|").replace("\n", " ")


def _json(value: Any) -> list[str]:
  return [
    "```json",
    *json.dumps(value, indent=2, default=str).splitlines(),
    "```",
  ]
