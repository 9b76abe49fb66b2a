"""What `byol prepare` says of mistakes, damage and disks."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from byol_flax import main
from input_pipeline.errors import UsageError
from input_pipeline.prepare import array_records
from tests import processes
from tests.input_pipeline.prepare.test_prepare import byol_prepare, jpeg, write
from tests.trainers import ROOT


def tar(**files):
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode="w") as archive:
    for name, content in files.items():
      info = tarfile.TarInfo(name.replace("__", "/"))
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  return out.getvalue()


WHOLE = tar(a__1=b"", a__2=b"")
SMALL = {"s/1.jpg": jpeg(0)}
BOTH = {"s/train/a/1.jpg": jpeg(0), "s/val/a/1.jpg": jpeg(1)}


@pytest.mark.parametrize(
  ("files", "words", "message"),
  [
    ({}, ["nothing"], "no '.*/nothing'"),
    ({}, [""], "no ''"),
    ({"s.tar.gz": b""}, ["s.tar.gz"], "compressed tar file"),
    ({"s.tar": b"no tar" * 999}, ["s.tar"], "is no whole tar file"),
    ({"s.tar": WHOLE[:512]}, ["s.tar"], "cut off or damaged at its byte 512"),
    ({"s.tar": WHOLE[:700]}, ["s.tar"], "cut off or damaged at its byte 512"),
    ({"s.tar": tar(a=b"x" * 2000)[:900]}, ["s.tar"], "no whole tar file"),
    (
      {"s.tar": WHOLE[:512] + b"?" * 512 + WHOLE[1024:]},
      ["s.tar"],
      "cut off or damaged at its byte 512",
    ),
    (
      {"s.tar": tar(**{"a.tar": WHOLE[:512]})},
      ["s.tar"],
      "a in .*s.tar is cut off",
    ),
    ({"s/readme.md": b""}, ["s"], "holds no images"),
    ({"s/a/1.jpg": b"", "s/2.jpg": b""}, ["s"], "1 of 2 images"),
    ({"s/a/1.jpg": b"x", "s/b/2.jpg": b"y"}, ["s"], "not one can be decoded"),
    (BOTH | {"s/bus/1.jpg": b""}, ["s"], "beside them images in bus"),
    (BOTH | {"s/validation/a/1.jpg": b""}, ["s"], "are the same split"),
    (
      {"s/train/a/1.jpg": jpeg(0), "s/val/1.jpg": jpeg(1)},
      ["s"],
      "1 of 2 images .* have a class.*These have none: validation: 1.jpg",
    ),
    ({"l.txt": b"a.jpg\n"}, ["l.txt"], "Line 1 of .*names a.jpg"),
    ({"l.tsv": b"\xef\xbb\xbfa\tb\tc"}, ["l.tsv"], "after the tab comes 'b"),
    ({"l.tsv": b"a.jpg\t \n"}, ["l.tsv"], "after the tab comes ' '"),
    (SMALL, ["s", "--name=My Set"], "small letters"),
    (SMALL, ["s", "--split=all"], "all splits to TFDS"),
    (SMALL, ["s", "--against=x"], "expected the folder"),
    (SMALL, ["s", "--against=/nowhere:train"], "expected the folder"),
    (SMALL, ["s", "--workers=-3"], "--workers is -3"),
    (
      SMALL | {"t.txt": b"golden retriever\nhusky\n"},
      ["s", "--labels=t.txt"],
      "2 classes for 1 images",
    ),
    (
      SMALL | {"t.txt": b"\xff"},
      ["s", "--labels=t.txt"],
      "Cannot read classes",
    ),
    (
      SMALL | {"t.tar": WHOLE},
      ["s", "--labels=t.tar"],
      "not ImageNet's development kit",
    ),
    ({"s/1.jpg": jpeg(0), "out": b""}, ["s"], "OUT should be a folder"),
  ],
)
def test_mistakes_are_told(tmp_path, monkeypatch, files, words, message):
  write(tmp_path, files)
  monkeypatch.chdir(tmp_path)
  source, *flags = words
  flags = flags if "--workers=-3" in flags else ["--workers=1", *flags]
  with pytest.raises(UsageError, match=message):
    main.main(["prepare", source, "out", *flags])


@pytest.mark.parametrize("damage", ["remove", "cut"])
def test_shards_that_are_gone_are_noticed(tmp_path, damage):
  source = write(tmp_path / "s", {"1.jpg": jpeg(0), "2.jpg": jpeg(1)})
  byol_prepare(source, tmp_path / "out", "--name=s", "--workers=1")
  (shard,) = (tmp_path / "out").rglob("*array_record*")
  if damage == "remove":
    shard.unlink()
  else:
    os.truncate(shard, 99)
  with pytest.raises(UsageError, match="Remove the folder and prepare it"):
    byol_prepare(source, tmp_path / "out", "--name=s", "--workers=1")


def test_two_sets_have_reports_of_their_own(tmp_path):
  source = write(tmp_path / "s", {"1.jpg": jpeg(0), "2.jpg": jpeg(1)})
  for name in ("one", "two", "three"):
    byol_prepare(
      source,
      tmp_path / "out",
      f"--name={name}",
      "--workers=1",
      *(
        f"--against={tmp_path}/out/{other}/1.0.0:train"
        for other in ("one", "two")
        if name == "three"
      ),
    )
  reports = (tmp_path / "out" / "three").rglob("leaks-*")
  assert sorted(path.name for path in reports) == [
    "leaks-train-in-one-1.0.0-train.tsv",
    "leaks-train-in-two-1.0.0-train.tsv",
  ]


def test_a_full_disk_leaves_no_half_a_shard(tmp_path):
  """/dev/full stands for one: every write fails there."""
  path = tmp_path / "shard"
  os.symlink("/dev/full", f"{path}.tmp")
  with pytest.raises(RuntimeError, match="No space left"):
    array_records.write(str(path), [b"x" * 10_000_000] * 4)
  assert not list(tmp_path.iterdir())


def workers_of(pid):
  """Processes of its pool, not Python's own helper among them."""
  return [
    child
    for child in processes.children(pid)
    if "spawn_main" in processes.command(child)
  ]


@pytest.mark.slow
def test_workers_end_with_a_command_that_is_killed(tmp_path):
  source = write(
    tmp_path / "s", {f"{i}.jpg": jpeg(i, size=(300, 400)) for i in range(40)}
  )
  list_ = tmp_path / "l.txt"
  with open(list_, "w") as file:
    for i in range(6000):  # links, so that it is at work for long
      os.link(f"{source}/{i % 40}.jpg", f"{source}/{i + 40}.jpg")
      file.write(f"s/{i + 40}.jpg\n")
  command = [sys.executable, "-m", "byol_flax.main", "prepare", str(list_)]
  process = subprocess.Popen(
    [*command, str(tmp_path / "out"), "--name=s", "--workers=2"],
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
  )
  deadline = time.monotonic() + 300
  while len(workers := workers_of(process.pid)) < 2:
    assert process.poll() is None
    assert time.monotonic() < deadline
    time.sleep(0.05)
  process.send_signal(signal.SIGKILL)
  process.wait()
  while any(map(processes.lives, workers)):
    assert time.monotonic() < deadline
    time.sleep(0.1)
