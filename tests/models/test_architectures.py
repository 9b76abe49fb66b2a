"""Architectures by name, and spelled out."""

import dataclasses

import pytest

from byol_flax import bounds
from byol_flax.models import resnet
from tests.models.test_models import COUNTS


@pytest.mark.parametrize("name", resnet.ARCHITECTURES)
def test_an_architecture_can_be_spelled_out(name):
  architecture = resnet.ARCHITECTURES[name]
  assert resnet.name_of(architecture) == name
  other = dataclasses.replace(architecture, stem_channels=68)
  spelled = resnet.name_of(other)
  assert bounds.Architecture().fits(spelled)
  assert resnet.architecture_of(spelled) == other


@pytest.mark.parametrize(
  "name",
  [
    "resnet",
    "basic:1-1:8:64",
    "basic:0-1:8-8:64",
    "basic:1-:8-8:64",
    "wide:1:8:64",
    "basic:1:8:64:1",
  ],
)
def test_what_is_no_architecture(name):
  assert not bounds.Architecture("resnet18").fits(name)


def test_parameters_of_every_architecture_are_counted():
  assert {name for name, _ in COUNTS} == set(resnet.ARCHITECTURES)
