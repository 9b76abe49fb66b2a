"""The encoder whose weights lie beside this file, as a PyTorch module.

This file needs PyTorch and safetensors, and nothing else; in particular not the
program that trained the network. Three lines turn images into features:

  import encoder  # this file
  model = encoder.load("FOLDER")  # with config.json and model.safetensors
  features = model(images)  # [B, F] float32

`images` are uint8 pixels, [B, 3, H, W] or [B, H, W, 3], in the order red,
green, blue. The module scales them itself, as config.json says, so pass the
pixels as they are and leave `Normalize` out. Other types are refused for that
reason. Images of any size will do; the network was shown squares of
`image_size` pixels: the middle `crop_ratio` of an image's shorter side, resized
(bicubic).

Parameters are named as torchvision names them. The network can also do what
torchvision's cannot: pad as TensorFlow does (SAME), project the first shortcut
of basic blocks, have a stem for small images, and any depth and width.
"""

import json
import pathlib

import torch
from torch import nn
from torch.nn import functional


class SameConv(nn.Conv2d):
  """A convolution that pads as TensorFlow's SAME does."""

  def forward(self, x):
    """[B, C, H, W] -> [B, C', H/stride, W/stride], rounded up."""
    x = functional.pad(x, _same_pads(x, self.kernel_size[0], self.stride[0]))
    return super().forward(x)


class SamePool(nn.MaxPool2d):
  """A pooling that pads as TensorFlow's SAME does."""

  def forward(self, x):
    """[B, C, H, W] -> [B, C, H/stride, W/stride], rounded up."""
    pads = _same_pads(x, self.kernel_size, self.stride)
    return super().forward(functional.pad(x, pads, value=-torch.inf))


def _same_pads(x, kernel, stride):
  """Pixels to add: as few as the output needs, the odd one at the end."""
  pads = []
  for size in (x.shape[3], x.shape[2]):  # the order of `functional.pad`
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    pads += [total // 2, total - total // 2]
  return pads


def _conv(padding, inputs, outputs, kernel, stride=1):
  if padding == "same":
    return SameConv(inputs, outputs, kernel, stride, bias=False)
  return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Block(nn.Module):
  """Two 3×3 convolutions, or 1×1, 3×3 and 1×1, around a shortcut."""

  def __init__(
    self, inputs, outputs, stride, *, bottleneck, project, padding, epsilon
  ):
    super().__init__()
    inner = outputs // 4
    plan = [(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
    if bottleneck:
      plan = [
        (inputs, inner, 1, 1),
        (inner, inner, 3, stride),
        (inner, outputs, 1, 1),
      ]
    self.depth = len(plan)
    for i, (before, after, kernel, step) in enumerate(plan, start=1):
      setattr(self, f"conv{i}", _conv(padding, before, after, kernel, step))
      setattr(self, f"bn{i}", nn.BatchNorm2d(after, epsilon))
    self.downsample = None
    if project:
      self.downsample = nn.Sequential(
        _conv(padding, inputs, outputs, 1, stride),
        nn.BatchNorm2d(outputs, epsilon),
      )

  def forward(self, x):
    """[B, C, H, W] -> [B, C', H/stride, W/stride]."""
    shortcut = x if self.downsample is None else self.downsample(x)
    for i in range(1, self.depth + 1):
      x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
      x = functional.relu(x + shortcut if i == self.depth else x)
    return x


class Encoder(nn.Module):
  """A ResNet without a classifier; see the top of this file.

  Args:
    bottleneck: whether blocks have three convolutions.
    blocks: their number in each group.
    channels: output channels of each group; the last one is F.
    stem_channels: output channels of the first convolution.
    stem: "imagenet" (7×7, stride 2, then pooling) or "small" (3×3).
    shortcut: "projection" in the first block of every group, or "identity"
      where the shapes allow it, as in torchvision.
    padding: "same" (TensorFlow's) or "symmetric" (PyTorch's).
    epsilon: of BatchNorm.
    mean: subtracted from pixels in [0, 1], for each channel.
    std: divides the result, for each channel.
  """

  def __init__(
    self,
    *,
    bottleneck,
    blocks,
    channels,
    stem_channels,
    stem,
    shortcut,
    padding,
    epsilon,
    mean,
    std,
  ):
    super().__init__()
    small = stem == "small"
    kernel, stride = (3, 1) if small else (7, 2)
    self.conv1 = _conv(padding, 3, stem_channels, kernel, stride)
    self.bn1 = nn.BatchNorm2d(stem_channels, epsilon)
    pool = SamePool(3, 2) if padding == "same" else nn.MaxPool2d(3, 2, 1)
    self.maxpool = nn.Identity() if small else pool
    self.groups = len(blocks)
    before = stem_channels
    for group, (number, after) in enumerate(zip(blocks, channels, strict=True)):
      made = []
      for i in range(number):
        first_stride = 2 if group > 0 and i == 0 else 1
        same_shape = first_stride == 1 and before == after
        made.append(
          Block(
            before,
            after,
            first_stride,
            bottleneck=bottleneck,
            project=i == 0 and (shortcut == "projection" or not same_shape),
            padding=padding,
            epsilon=epsilon,
          )
        )
        before = after
      setattr(self, f"layer{group + 1}", nn.Sequential(*made))
    for name, values in (("mean", mean), ("std", std)):
      values = torch.tensor(values, dtype=torch.float32).reshape(3, 1, 1)
      self.register_buffer(name, values, persistent=False)

  def scale(self, images):
    """Pixels, uint8 [B, 3, H, W] or [B, H, W, 3] -> [B, 3, H, W] floats."""
    shape = list(images.shape)
    if images.dtype != torch.uint8 or len(shape) != 4 or 3 not in shape[1::2]:
      raise TypeError(
        "Expected pixels, uint8 [B, 3, H, W] or [B, H, W, 3], not yet scaled; "
        f"these are {images.dtype} {shape}."
      )
    if shape[1] != 3:
      images = images.permute(0, 3, 1, 2)
    return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

  def forward(self, images):
    """Pixels, uint8 [B, 3, H, W] or [B, H, W, 3] -> features [B, F]."""
    x = functional.relu(self.bn1(self.conv1(self.scale(images))))
    x = self.maxpool(x)
    for group in range(self.groups):
      x = getattr(self, f"layer{group + 1}")(x)
    return x.mean((2, 3))


def load(folder):
  """The encoder in `folder`, in inference mode.

  Args:
    folder: has config.json and model.safetensors.
  """
  from safetensors.torch import load_file

  folder = pathlib.Path(folder)
  config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
  model = Encoder(**config["encoder"])
  model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
  return model.eval()
