"""BYOL's step in plain PyTorch, to be timed beside ours.

Network, loss, LARS and target average are the same, written as one would in
PyTorch: one call for each view, and parameters in lists. On a GPU it uses
channels last, bfloat16 autocast and `torch.compile`, and cuDNN tries its
convolutions and takes the fastest, as XLA does for ours.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from byol_flax.models import pixels, resnet


class Block(nn.Module):
  """Residual block, like `resnet.Block`."""

  def __init__(
    self,
    inputs: int,
    outputs: int,
    stride: int,
    bottleneck: bool,
    project: bool,
  ) -> None:
    super().__init__()
    inner = outputs // 4
    plan = [(outputs, 3, stride), (outputs, 3, 1)]
    if bottleneck:
      plan = [(inner, 1, 1), (inner, 3, stride), (outputs, 1, 1)]
    layers: list[nn.Module] = []
    channels = inputs
    for features, kernel, step in plan:
      layers += [_conv(channels, features, kernel, step), _norm(features)]
      layers.append(nn.ReLU(inplace=True))
      channels = features
    self.body = nn.Sequential(*layers[:-1])
    self.shortcut: nn.Module = nn.Identity()
    if project:
      self.shortcut = nn.Sequential(
        _conv(inputs, outputs, 1, stride), _norm(outputs)
      )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """[B, C, H, W] -> [B, C', H/stride, W/stride]."""
    return functional.relu(self.body(x) + self.shortcut(x))


class Network(nn.Module):
  """Encoder, projector, predictor, classifier, like `byol.ByolNetwork`."""

  def __init__(self, model: Any, num_classes: int) -> None:
    super().__init__()
    encoder = model.encoder
    shape = resnet.architecture_of(encoder.architecture)
    channels = int(shape.stem_channels * encoder.width)
    small = encoder.stem == "small"
    stem = [
      _conv(3, channels, 3 if small else 7, 1 if small else 2),
      _norm(channels),
      nn.ReLU(inplace=True),
    ]
    if not small:
      stem.append(nn.MaxPool2d(3, 2, padding=1))
    blocks: list[nn.Module] = []
    for group, (count, outputs) in enumerate(
      zip(shape.blocks, shape.channels, strict=True)
    ):
      outputs = int(outputs * encoder.width)
      for i in range(count):
        stride = 2 if group > 0 and i == 0 else 1
        blocks.append(
          Block(channels, outputs, stride, shape.bottleneck, i == 0)
        )
        channels = outputs
    self.encoder = nn.Sequential(*stem, *blocks)
    size = model.projector.output_size
    self.projector = _mlp(channels, model.projector.hidden_size, size)
    self.predictor = _mlp(size, model.predictor.hidden_size, size)
    self.classifier = nn.Linear(channels, max(num_classes, 1))

  def forward(
    self, images: torch.Tensor
  ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[B, 3, H, W] -> projection [B, D], prediction [B, D], logits [B, K]."""
    representation = self.encoder(images).mean((2, 3))
    projection = self.projector(representation)
    logits = self.classifier(representation.detach())
    return projection, self.predictor(projection), logits


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
  padding = kernel // 2
  return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
  return nn.BatchNorm2d(channels)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
  return nn.Sequential(
    nn.Linear(inputs, hidden),
    nn.BatchNorm1d(hidden),
    nn.ReLU(inplace=True),
    nn.Linear(hidden, outputs, bias=False),
  )


def has_a_gpu() -> bool:
  """Whether `make_update` computes on a GPU."""
  return torch.cuda.is_available()


def make_update(
  config: Any, batch: dict[str, np.ndarray], num_classes: int
) -> Callable[[], None]:
  """Returns a function that does one update on `batch` and waits for it.

  Learning rate and τ are constants, because schedules cost nothing.
  """
  gpu = has_a_gpu()
  device = "cuda" if gpu else "cpu"
  torch.backends.cudnn.benchmark = gpu
  layout = torch.channels_last if gpu else torch.contiguous_format
  online = Network(config.model, num_classes).to(device, memory_format=layout)
  target = copy.deepcopy(online).requires_grad_(False)
  momentum = [torch.zeros_like(p) for p in online.parameters()]
  views = [
    torch.from_numpy(batch[name]).to(device).permute(0, 3, 1, 2)
    for name in ("view1", "view2")
  ]
  labels = torch.from_numpy(batch["label"]).long().to(device)
  mean = torch.tensor(pixels.IMAGENET_MEAN, device=device).view(1, 3, 1, 1)
  std = torch.tensor(pixels.IMAGENET_STD, device=device).view(1, 3, 1, 1)

  def loss_of() -> torch.Tensor:
    with torch.autocast(device, torch.bfloat16, enabled=gpu):
      images = [
        ((view / 255 - mean) / std).contiguous(memory_format=layout)
        for view in views
      ]
      outputs = [online(image) for image in images]
      with torch.no_grad():
        targets = [target(image)[0] for image in images]
    loss = _regression(outputs[0][1], targets[1])
    loss = loss + _regression(outputs[1][1], targets[0])
    return loss + functional.cross_entropy(outputs[0][2].float(), labels)

  compiled = torch.compile(loss_of) if gpu else loss_of

  def update() -> None:
    online.zero_grad(set_to_none=True)
    compiled().backward()
    _lars(online, momentum, config.optimizer)
    with torch.no_grad():
      pairs = (list(target.parameters()), list(online.parameters()))
      torch._foreach_lerp_(*pairs, 1 - config.base_target_decay)
    if gpu:
      torch.cuda.synchronize()

  return update


def _regression(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
  cosine = functional.cosine_similarity(prediction.float(), target.float())
  return (2 - 2 * cosine).mean()


@torch.no_grad()
def _lars(online: Network, momentum: list[torch.Tensor], options: Any) -> None:
  params = list(online.parameters())
  grads = [
    p.grad if p.grad is not None else torch.zeros_like(p) for p in params
  ]
  matrices = [i for i, p in enumerate(params) if p.ndim > 1]
  weights = [params[i] for i in matrices]
  moved = [grads[i] for i in matrices]
  torch._foreach_add_(moved, weights, alpha=options.weight_decay)
  sizes = torch._foreach_norm(weights), torch._foreach_norm(moved)
  ratios = torch._foreach_div(*sizes)
  torch._foreach_mul_(ratios, options.trust_coefficient)
  torch._foreach_mul_(moved, ratios)
  torch._foreach_mul_(momentum, options.momentum)
  torch._foreach_add_(momentum, grads)
  torch._foreach_add_(params, momentum, alpha=-0.1)
