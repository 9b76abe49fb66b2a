"""Writes an encoder as a folder that Hugging Face's transformers can load."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from byol_flax.models import resnet
from byol_flax.weights import (
  model_card,
  preprocessing,
  safetensors_files,
  torch_export,
)
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Foreign


def write(
  foreign: Foreign,
  folder: str,
  *,
  run: Mapping[str, Any],
  classifier: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
  """Writes weights, config, preprocessor and model card.

  The folder holds a `ResNetModel`, or with a classifier a
  `ResNetForImageClassification`.

  Args:
    foreign: its online encoder is written.
    folder: an empty one.
    run: what the model card tells, see `model_card.render`.
    classifier: kernel [F, K] and bias [K] of a classifier of representations.

  Raises:
    WeightsError: this encoder is none that transformers can compute, or an
      array cannot be read, or holds NaN.
  """
  if reason := why_not(foreign):
    raise WeightsError(
      f"Hugging Face's ResNet cannot compute this encoder: {reason}. Export it "
      "with --format=safetensors, which ships a PyTorch module that can."
    )
  named = torch_export.encoder_arrays(foreign, "huggingface")
  config = config_of(foreign)
  if classifier is not None:
    kernel, bias = classifier
    named = {f"resnet.{name}": array for name, array in named.items()}
    named["classifier.1.weight"] = kernel.T.astype(np.float32)
    named["classifier.1.bias"] = bias.astype(np.float32)
    config |= {
      "architectures": ["ResNetForImageClassification"],
      "id2label": {str(i): f"LABEL_{i}" for i in range(len(bias))},
      "label2id": {f"LABEL_{i}": i for i in range(len(bias))},
    }
  description = torch_export.description_of(foreign)
  safetensors_files.write(
    os.path.join(folder, "model.safetensors"),
    named,
    {preprocessing.KEY: description.text()},
  )
  classes = None if classifier is None else len(bias)
  texts = {
    "config.json": json.dumps(config, indent=2) + "\n",
    "preprocessor_config.json": json.dumps(_processor(foreign), indent=2)
    + "\n",
    "README.md": model_card.render(foreign, run, classes=classes),
  }
  for name, text in texts.items():
    torch_export.write_text(os.path.join(folder, name), text)


def why_not(foreign: Foreign) -> str | None:
  """Why transformers cannot compute this encoder; None if it can."""
  if reason := torch_export.why_not_symmetric(foreign):
    return reason
  if foreign.model["encoder"]["stem"] == "small":
    return "its first convolution is 3 × 3, without a pooling after it"
  return None


def config_of(foreign: Foreign) -> dict[str, Any]:
  """config.json of a `ResNetModel`."""
  architecture: resnet.Architecture = torch_export.architecture_of(foreign)
  return {
    "architectures": ["ResNetModel"],
    "model_type": "resnet",
    "num_channels": 3,
    "embedding_size": architecture.stem_channels,
    "hidden_sizes": list(architecture.channels),
    "depths": list(architecture.blocks),
    "layer_type": "bottleneck" if architecture.bottleneck else "basic",
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
  }


def _processor(foreign: Foreign) -> dict[str, Any]:
  """preprocessor_config.json: our evaluation crop.

  It resizes the whole image and crops the middle, where we crop first and
  resize the crop. The windows agree within a pixel; theirs is antialiased, and
  ours is not, as the authors'. BiT's processor does so for any size; the one
  that ResNets usually have crops only below 384 pixels.
  """
  size = foreign.image_size
  mean, std = torch_export.description_of(foreign).normalisation
  return {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": int(size / foreign.crop_ratio)},
    "resample": 3,  # bicubic
    "do_center_crop": True,
    "crop_size": {"height": size, "width": size},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(mean),
    "image_std": list(std),
  }
