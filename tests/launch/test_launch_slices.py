"""Which slice and zone a config takes."""

import pytest

from byol_flax import slices as known
from byol_flax.commands import config_file
from launch.controller import bill, slices
from tests.fake_cloud.rig import ROOT, WORKDIR

pytest_plugins = ("tests.fake_cloud.fixtures",)


@pytest.mark.slow
def test_slices_tsv_has_every_config_that_trains():
  configs = {path.stem for path in (ROOT / "configs").glob("*.py")}
  trains = {name for name in configs if name.startswith("byol")}
  rows = [
    line.split("\t")
    for line in (ROOT / "launch/slices.tsv").read_text().splitlines()
    if not line.startswith("#")
  ]
  kinds = ("v3", "v4", "v5litepod", "v6e")
  assert [(row[0], slices.generation(row[1])) for row in rows] == [
    (name, kind)
    for name in dict.fromkeys(row[0] for row in rows)
    for kind in kinds
  ]
  assert {row[0] for row in rows} == trains
  for name, slice_type, zone, why in rows:
    assert known.SLICES[slice_type].name == slice_type
    config = config_file.load_config([f"--config={ROOT}/configs/{name}.py"])
    assert config.batch_size % slices.devices(slice_type) == 0
    assert bill.estimate(slice_type, zone, True, None, None).hour
    assert (why == "cheap") == (slices.generation(slice_type) != "v3")


@pytest.mark.parametrize(
  ("asked", "slice_type", "zone"),
  [
    ((), "v3-8", "europe-west4-a"),
    (("--slice=v4",), "v4-8", "us-central2-b"),
    (("--slice=v5e",), "v5litepod-1", "us-central1-a"),
    (("--slice=v5e-16",), "v5litepod-16", "us-central1-a"),
    (("--slice=v6e", "--zone=a"), "v6e-1", "a"),
    (("--slice=v4-32",), "v4-32", "us-central2-b"),
    (("--slice=v3-32",), "v3-32", "europe-west4-a"),
  ],
)
def test_a_generation_stands_for_its_row(rig, asked, slice_type, zone):
  flags = (*asked, WORKDIR, "--dry-run", "--yes", "--commit=HEAD")
  words = rig.run("byol_digits", *flags).stdout.split()
  assert f"--accelerator-type={slice_type}" in words
  assert f"--zone={zone}" in words


def test_a_dry_run_of_status_prints_commands_only(rig):
  lines = rig.run("status", "byol_digits", "--dry-run").stdout.splitlines()
  assert {line.split()[0] for line in lines} == {"gcloud"}


def test_a_generation_without_a_row_is_told(rig):
  result = rig.run("byol_digits", "--slice=v5p", WORKDIR, status=2)
  told = "launch/slices.tsv has no v5p row for byol_digits; give --slice=v5p-N."
  assert result.stderr == f"tpu_vm.sh: {told}\n"
