"""Prices, places and options, before anything is created."""

import itertools
import re
import shlex
import shutil
import sys

import pytest

from byol_flax import slices as known
from byol_flax.preflight import storage
from launch.controller import bill, permission, room, slices
from launch.controller.before import is_near
from tests.fake_cloud.rig import ROOT, START, WORKDIR, option, verb_of

pytest_plugins = ("tests.fake_cloud.fixtures",)
RUN = ("byol_digits", "--slice=v3-32", WORKDIR)


def test_devices_are_those_that_the_trainer_sees():
  for name, slice_ in known.SLICES.items():
    assert slices.devices(name) == slice_.devices


def test_every_price_has_a_day_and_the_table_a_source():
  lines = (ROOT / "launch/prices.tsv").read_text().splitlines()
  assert any("https://" in line for line in lines if line.startswith("#"))
  rows = [line.split("\t") for line in lines if not line.startswith("#")]
  assert len({(row[0], row[1]) for row in rows}) == len(rows)
  for which, zone, spot, on_demand, day in rows:
    assert slices.generation(which) or slices.generation(f"{which}-8")
    assert re.fullmatch(r"[a-z]+-[a-z]+\d-[a-f]", zone)
    assert 0 < float(spot) < float(on_demand)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", day)


@pytest.mark.parametrize(
  ("slice_", "zone", "spot", "price", "config", "hour", "hours"),
  [
    # The catalog: 168.96 and 512 dollars for v3-512, 2.244 and 8.8 for v3-8.
    ("v3-512", "europe-west4-a", True, None, "byol_r50x1", 168.96, 1399 / 512),
    ("v3-512", "europe-west4-a", False, None, None, 512.0, None),
    ("v3-8", "europe-west4-a", True, None, "byol_cifar10", 2.244, 1 / 8),
    ("v3-8", "europe-west4-a", False, None, "byol", 8.8, None),
    ("v4-32", "us-central2-b", True, None, None, 14.744, None),
    ("v5litepod-16", "us-central1-a", False, None, None, 19.2, None),
    ("v5p-16", "us-central1-a", False, None, None, 33.6, None),
    ("v6e-256", "us-east5-a", True, None, None, 276.48, None),
    ("v4-32", "nowhere1-a", True, None, None, None, None),
    ("v4-32", "nowhere1-a", True, 0.5, None, 8.0, None),
  ],
)
def test_a_price(slice_, zone, spot, price, config, hour, hours):
  found = bill.estimate(slice_, zone, spot, price, config)
  assert found.hour == pytest.approx(hour)
  assert found.hours == pytest.approx(hours)


@pytest.mark.parametrize(
  ("hour", "hours", "most", "dollars"),
  [
    (10.0, 2.5, None, 25.0),
    (10.0, 2.5, 1.0, 10.0),
    (10.0, 2.5, 9.0, 25.0),
    (10.0, None, 9.0, 90.0),
    (10.0, None, None, 240.0),
  ],
)
def test_what_may_be_spent_unseen(hour, hours, most, dollars):
  assert bill.Bill(hour, "", hours).most(most)[0] == dollars


@pytest.mark.parametrize(
  ("location", "zone", "near"),
  [
    ("EUROPE-WEST4", "europe-west4-a", True),
    ("EUROPE-WEST4", "europe-west1-a", False),
    ("US-CENTRAL1", "us-central10-a", False),
    ("EU", "europe-west4-a", True),
    ("EU", "us-central1-a", False),
    ("US", "us-east5-b", True),
    ("NAM4", "us-central1-a", True),
  ],
)
def test_near(location, zone, near):
  assert is_near(location, zone) == near


@pytest.mark.parametrize(
  ("plan", "arguments", "sentence"),
  [
    ({}, (*RUN, "--price=1"), "This may cost $768; give --yes to agree."),
    ({}, (*RUN, "--price=1", "--max-hours=5"), "This may cost $160; "),
    (
      {"location": "US-CENTRAL1"},
      (*RUN, "--price=0.1"),
      "gs://bucket is in US-CENTRAL1, the slice in europe-west4-a",
    ),
    (
      {"storage": ["ok", "One or more URLs matched no objects."]},
      (*RUN, "--yes", "--data=gs://bucket/tfds"),
      "The data in gs://bucket/tfds cannot be read: ",
    ),
    (
      {"storage": ["ok", "HTTPError 403: storage.objects.create denied"]},
      (*RUN, "--yes"),
      "The workdir gs://bucket/run cannot be written to: ERROR: (gcloud) HTTP",
    ),
    (
      {"storage": ["gs://bucket not found: 404."]},
      (*RUN, "--yes"),
      "There is no bucket gs://bucket: ",
    ),
  ],
)
def test_what_is_wrong_is_found_before_anything_is_created(
  rig, plan, arguments, sentence
):
  rig.plan(**plan)
  result = rig.run(*arguments, status=2)
  assert f"tpu_vm.sh: {sentence}" in result.stderr
  assert rig.verbs == []


ACCOUNT = "serviceAccount:1-compute@developer.gserviceaccount.com"
OTHER = "serviceAccount:byol@p.iam.gserviceaccount.com"


@pytest.mark.parametrize(
  ("lines", "answer"),
  [
    ([("roles/tpu.editor", ACCOUNT)], "yes"),
    ([("organizations/1/roles/a", ACCOUNT), ("roles/owner", ACCOUNT)], "yes"),
    ([], "unknown"),
    ([("roles/storage.admin", ACCOUNT), ("roles/owner", "user:a@b.c")], "no"),
    ([("roles/tpu.admin", OTHER), ("projects/p/roles/a", OTHER)], "no"),
    ([("projects/p/roles/a", ACCOUNT)], "unknown"),
    ([("roles/owner", "group:all@example.org")], "unknown"),
    ([("roles/storage.admin", "group:all@example.org")], "no"),
  ],
)
def test_who_may_delete_a_slice(lines, answer):
  text = "".join(f"{role}\t{member}\n" for role, member in lines)
  account = ACCOUNT.partition(":")[2]
  assert permission.judge(text, account) == answer


def test_a_slice_that_may_not_delete_itself_is_asked_about(rig):
  own = ("--service-account=byol@p.iam.gserviceaccount.com", "--price=0.1")
  sentence = "The slice may not delete itself; give --yes to agree."
  rig.plan(policy=[f"roles/viewer\t{OTHER}"])
  result = rig.run(*RUN, *own, status=2)
  assert f"tpu_vm.sh: {sentence}" in result.stderr
  assert (
    "gcloud projects add-iam-policy-binding my-project "
    "--member=serviceAccount:byol@p.iam.gserviceaccount.com" in result.stderr
  )
  assert rig.verbs == []
  rig.run(*RUN, "--price=0.1", status=2)  # the default account has no role
  # Who may not ask is told nothing, and who does not want it is not asked.
  nowhere = {"storage": ["gs://bucket not found: 404."]}
  for words, policy in (((), ["denied"]), (("--delete=never",), [])):
    rig.plan(policy=policy, **nowhere)
    (rig.folder / "state.json").unlink()
    result = rig.run(*RUN, "--price=0.1", *words, status=2)
    assert "There is no bucket" in result.stderr
    assert "delete" not in result.stderr


def listing(split, version, size, count=2):
  """Lines of `gcloud storage ls --long` for the shards of a split."""
  folder = f"gs://bucket/tfds/imagenet2012/{version}"
  name = f"imagenet2012-{split}.array_record"
  return [
    f"{size:>12}  2026-01-01T00:00:00Z  {folder}/{name}-{k:05}-of-{count:05}"
    for k in range(count)
  ]


def test_shards_of_the_newest_version_are_counted():
  lines = [
    *listing("train", "5.9.0", 7, count=5),
    *listing("train", "5.10.0", 1_000),
    *listing("validation", "5.10.0", 10**9),
    "  83  2026-01-01T00:00:00Z  gs://bucket/tfds/imagenet2012/5.10.0/features.json",
    "12.5GiB  2026-01-01T00:00:00Z  "
    "gs://bucket/tfds/imagenet2012/5.10.0/a-train.array_record-00000-of-00003",
    "TOTAL: 10 objects, 2000002118 bytes (1.86GiB)",
  ]
  text = "\n".join(lines)
  assert room.bytes_of(text, "train") == 2_000
  assert room.bytes_of(text, "test") == 0


def test_the_memory_of_hosts_is_that_of_preflight():
  files = storage.Files(mean_bytes=1.0, count=1, in_shards=True)
  for name, slice_ in known.SLICES.items():
    memory = slices.host_memory(name)
    found = storage.needs(files, slice_, 1.0, 1).shm_bytes
    assert found == (None if memory is None else memory / 2)


@pytest.mark.parametrize(
  ("stage", "slice_", "most"),
  [
    ("/dev/shm/byol", "v5litepod-16", 96e9),
    ("/dev/shm", "v5litepod-8", 192e9),
    ("/dev/shm/byol", "v3-512", None),
    ("/dev/shmx", "v3-8", None),
    ("/mnt/disks/a", "v3-8", None),
    ("/tmp/byol", "v3-8", 100 * 2**30),
  ],
)
def test_room_for_a_copy(stage, slice_, most):
  assert room.room_of(stage, slice_)[0] == most


@pytest.mark.slow
def test_images_that_cannot_fit_are_told_before_anything_is_created(
  rig, tmp_path
):
  clone = tmp_path / "clone"
  shutil.copytree(rig.repository, clone)
  python = clone / ".venv/bin/python"
  python.parent.mkdir(parents=True)
  line = f'PYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"'
  python.write_text(f"#!/bin/sh\n{line}\n")
  python.chmod(0o755)
  rig.repository = clone
  rig.plan(objects=listing("train", "5.1.0", 69 * 10**9))
  words = ("byol_digits", WORKDIR, "--slice=v5litepod-16", "--yes")
  words += ("--zone=europe-west4-b", "--data=gs://bucket/tfds")
  words += ("--config.data.name=imagenet2012", "--stage=/dev/shm/byol")
  result = rig.run(*words, status=2)
  assert (
    "tpu_vm.sh: /dev/shm/byol cannot hold at least 138.0 GB of "
    "gs://bucket/tfds/imagenet2012, which each host copies: /dev/shm, half the "
    "memory of a v5litepod-16 host, has 96.0 GB." in result.stderr
  )
  assert rig.verbs == []
  without = [word for word in words if "--data" not in word]
  told = rig.run(*without, status=2).stderr
  assert "A new slice does not have imagenet2012; say by --data where " in told
  # Refused by the config itself, where our Python is.
  result = rig.run(*words, "--config.batch_size=40", status=2)
  assert "A batch of 40 images does not divide by the 16 " in result.stderr


@pytest.mark.slow
def test_without_a_price_that_is_said_and_a_day_is_the_measure(rig):
  elsewhere = ("--zone=us-west9-a", "--delete=never")
  rig.plan(location="US-WEST9")
  result = rig.run(*RUN, *elsewhere)
  assert "launch/prices.tsv has no row for it" in result.stderr
  assert rig.verbs == ["create", *START]
  rig.plan()
  result = rig.run(*RUN, *elsewhere, "--price=0.1", "--yes")
  assert "$3.20 an hour (--price); $76.80 for a day" in result.stderr


PASSED = {
  "--service-account": "byol@my-project.iam.gserviceaccount.com",
  "--network": "net",
  "--subnetwork": "projects/p/regions/r/subnetworks/s",
  "--labels": "team=vision,run=a",
  "--tags": "ssh,tpu",
}


@pytest.mark.slow
@pytest.mark.parametrize("queue", [(), ("--queued",)])
def test_options_of_the_slice_reach_gcloud(rig, queue):
  rig.plan(states=[])
  words = itertools.chain(*PASSED.items())
  flags = ("--reserved", "--internal-ips", "--internal-ip", "--yes")
  rig.run(*RUN, *queue, *words, *flags, "--price=0.01")
  create = next(call for call in rig.calls if verb_of(call) == "create")
  for name, value in PASSED.items():
    assert f"{name}={value}" in create
  assert {"--reserved", "--internal-ips"} < set(create)
  assert "--spot" not in create
  assert "--internal-ip" not in create
  reached = [call for call in rig.calls if call[3:4] in (["ssh"], ["scp"])]
  assert all("--internal-ip" in call for call in reached)


@pytest.mark.parametrize(
  ("words", "sentence"),
  [
    (
      ("--labels=Team=a",),
      "--labels takes KEY=VALUE,... in small letters, ",
    ),
    (("--tags=a b",), "--tags takes TAG,TAG,..., not a b."),
    (("--metadata=a",), "--metadata takes KEY=VALUE,..., not a."),
    (("--service-account=a",), "--service-account takes the e-mail address"),
    (("--network=a;b",), "--network takes the name of a network, not a;b."),
    (("--reserved", "--spot"), "A reserved slice is not preempted; leave out"),
    (("--delete=soon",), "--delete takes never, done or always, not soon."),
    (
      ("--max-hours=two",),
      "--max-hours takes a number of hours above 0, not two.",
    ),
    (("--max-restarts=1.5",), "--max-restarts takes a whole number, not 1.5."),
    (("--price=",), "--price needs a value."),
    (("--stage=shm",), "--stage takes an absolute path on each worker, "),
    (
      ("--stage=/a", "--config.loader.stage_dir=/b"),
      "--stage sets what --config.loader.stage_dir=/b sets; leave out one.",
    ),
    (
      ("--data=/a", "--config.loader.data_dir=/b"),
      "--data sets what --config.loader.data_dir=/b sets; leave out one.",
    ),
    (("--data=tfds",), "--data takes gs://BUCKET/FOLDER or an absolute path, "),
    (("--workdir=/",), "--workdir is a folder below /, not / itself."),
  ],
)
def test_a_wrong_option_is_told_in_a_sentence(rig, words, sentence):
  result = rig.run(*RUN, *words, status=2)
  assert result.stderr.startswith(f"tpu_vm.sh: {sentence}")
  assert rig.calls == []


@pytest.mark.slow
def test_a_data_disk_is_where_the_data_are(rig):
  rig.plan(disks={"images": ["READY", "pd-balanced", ""]})
  rig.run(*RUN, "--data-disk=images", "--price=0.01", "--yes")
  start = next(call for call in rig.calls if verb_of(call) == "start")
  words = shlex.split(option(start, "--command"))
  assert "--config.loader.data_dir=/mnt/disks/data" in words


@pytest.mark.slow
def test_a_slash_after_a_folder_changes_nothing(rig):
  slashes = (f"{WORKDIR}/", "--data=gs://bucket/tfds/")
  rig.run(*RUN[:-1], *slashes, "--price=0.01", "--yes")
  asked = [call for call in rig.calls if call[:2] == ["storage", "ls"]]
  assert ["storage", "ls", "gs://bucket/tfds/"] in asked
  start = next(call for call in rig.calls if verb_of(call) == "start")
  words = shlex.split(option(start, "--command"))
  assert {WORKDIR, "--config.loader.data_dir=gs://bucket/tfds"} < set(words)


@pytest.mark.slow
def test_a_far_bucket_is_named_although_one_agreed(rig):
  rig.plan(location="US-CENTRAL1\nTo take a survey, run: gcloud survey")
  errors = rig.run(*RUN, "--price=0.1", "--yes").stderr
  assert "gs://bucket is in US-CENTRAL1, the slice in europe-west4-a" in errors
  assert "The config was not checked" in errors


@pytest.mark.slow
def test_where_images_are_staged_reaches_every_worker_whole(rig):
  rig.run(*RUN, "--stage=/mnt/it's a $disk", "--price=0.01", "--yes")
  start = next(call for call in rig.calls if verb_of(call) == "start")
  assert "--worker=all" in start
  words = shlex.split(option(start, "--command"))
  assert words[-1] == "--config.loader.stage_dir=/mnt/it's a $disk"
