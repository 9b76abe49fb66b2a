"""The encoder is found under every publisher's prefix, and nothing else is."""

import pytest

from byol_flax.weights import publishers, torch_names
from byol_flax.weights.errors import WeightsError
from tests.weights import torch_made

TORCHVISION = list(torch_made.state_dict())
SEQUENTIAL = list(torch_made.state_dict("sequential"))
HUGGINGFACE = list(torch_made.state_dict("huggingface"))


def under(prefix, names=TORCHVISION):
  return [prefix + name for name in names]


# Publisher: (prefix of the online encoder, names of it, other beginnings).
FILES = {
  "torchvision": ("", TORCHVISION, ["fc."]),
  "DataParallel": ("module.", TORCHVISION, ["module.fc."]),
  "MoCo": (
    "state_dict.module.encoder_q.",
    TORCHVISION,
    [
      "state_dict.module.encoder_q.fc.",
      "state_dict.module.encoder_k.",
      "state_dict.module.queue",
      "optimizer.",
    ],
  ),
  "MoCo v3": (
    "state_dict.module.base_encoder.",
    TORCHVISION,
    ["state_dict.module.momentum_encoder.", "state_dict.module.predictor."],
  ),
  "lightly, examples": (
    "backbone.",
    SEQUENTIAL,
    ["backbone_momentum.", "projection_head.", "prediction_head."],
  ),
  "lightly, benchmarks": (
    "state_dict.backbone.",
    TORCHVISION,
    ["state_dict.teacher_backbone.", "optimizer_states."],
  ),
  "solo-learn": (
    "state_dict.backbone.",
    TORCHVISION,
    ["state_dict.momentum_backbone.", "state_dict.classifier."],
  ),
  "solo-learn, formerly": (
    "state_dict.encoder.",
    TORCHVISION,
    ["state_dict.momentum_encoder.", "state_dict.projector."],
  ),
  "mmpretrain": (
    "state_dict.backbone.",
    TORCHVISION,
    ["state_dict.neck.", "state_dict.target_net."],
  ),
  "mmselfsup before 1.0": (
    "state_dict.online_net.0.",
    TORCHVISION,
    ["state_dict.backbone.", "state_dict.target_net.", "state_dict.head."],
  ),
  "lightning-bolts": (
    "state_dict.online_network.encoder.",
    TORCHVISION,
    ["state_dict.target_network.", "state_dict.online_network.projector."],
  ),
  "lucidrains": (
    "online_encoder.net.",
    TORCHVISION,
    ["net.", "target_encoder.", "online_predictor."],
  ),
  "PyTorch-BYOL": (
    "online_network_state_dict.encoder.",
    SEQUENTIAL,
    ["target_network_state_dict.", "online_network_state_dict.projetion."],
  ),
  "VISSL": (
    "classy_state_dict.base_model.model.trunk._feature_blocks.",
    TORCHVISION,
    ["classy_state_dict.base_model.model.heads.", "classy_state_dict.optim."],
  ),
  "transformers": ("resnet.", HUGGINGFACE, ["classifier."]),
}


@pytest.mark.parametrize(
  ("prefix", "names", "others"), FILES.values(), ids=FILES
)
def test_every_publisher_is_known(prefix, names, others):
  beside = []
  for other in others:
    if any(
      w in other for w in ("momentum_", "_momentum", "target_", "encoder_k")
    ):
      # A whole encoder under the other prefix, in a module of its own.
      inner = {"target_net": "0.", "target_network": "encoder."}
      middle = next((v for k, v in inner.items() if f"{k}." in other), "")
      beside += under(other + middle, names)
    else:
      beside += [f"{other}0.weight" if other.endswith(".") else other]
  found = publishers.find([*beside, *under(prefix, names)])
  assert found.prefix == prefix
  assert sorted(found.names.values()) == sorted(under(prefix, names))
  assert set(found.ignored) == set(others)
  assert all(reason.endswith(".") for reason in found.ignored.values())


def test_reasons_say_what_is_left_out():
  _, names, _ = FILES["torchvision"]
  ignored = publishers.find([*names, "fc.weight", "optimizer.0"]).ignored
  assert ignored["fc."] == "It belongs to a classifier."
  assert ignored["optimizer."] == "It belongs to an optimizer's state."
  both = [*under("backbone."), *under("momentum_backbone.")]
  ignored = publishers.find(both).ignored
  assert "target network" in ignored["momentum_backbone."]


def test_two_encoders_of_which_none_is_the_online_one_are_refused():
  with pytest.raises(
    WeightsError, match=r"2 encoders.*'first\.' and 'second\.'"
  ):
    publishers.find([*under("first."), *under("second.")])


def test_a_target_network_alone_is_taken():
  assert publishers.find(under("teacher.")).prefix == "teacher."


@pytest.mark.parametrize(
  "extra",
  [
    "layer1.0.se.fc1.weight",  # squeeze and excitation
    "layer1.0.conv1.bias",
    "layer1.0.downsample.2.weight",
    "blocks.0.weight",
  ],
)
def test_what_a_resnet_has_not_is_refused_by_name(extra):
  with pytest.raises(WeightsError, match=f"{extra} under the encoder's prefix"):
    publishers.find([*TORCHVISION, extra])


@pytest.mark.parametrize("names", [[], ["blocks.0.attn.qkv.weight"]])
def test_other_networks_are_refused(names):
  with pytest.raises(WeightsError, match="holds no ResNet"):
    publishers.find(names)


@pytest.mark.parametrize("naming", torch_names.NAMINGS)
def test_names_go_there_and_back(naming):
  weights = torch_made.encoder_weights()
  places = [place for place, _ in torch_names.places(weights.encoder)]
  names = [torch_names.name_of(place, naming) for place in places]
  assert len(set(names)) == len(places) > 60
  assert [torch_names.place_of(name, naming) for name in names] == places


@pytest.mark.parametrize(
  "name",
  ["layer0.0.conv1.weight", "layer1.0.conv0.weight", "layer01.0.conv1.weight"]
  + ["conv1.bias", "bn1.foo", "fc.weight", "layer1.conv1.weight", "conv1"],
)
def test_names_that_no_encoder_has(name):
  assert torch_names.place_of(name, "torchvision") is None
