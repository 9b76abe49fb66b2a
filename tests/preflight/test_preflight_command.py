"""Preflight as a command: its child process, mistakes, signals."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from byol_flax import main, slices
from byol_flax.preflight import apart
from input_pipeline.errors import RunError, UsageError
from tests import conftest, processes, trainers
from tests.preflight.test_preflight import compiled


def crash(config, slice_, *, tell):
  tell("crashing")
  os.write(2, b"*** SIGSEGV received by PID 1 ***\nPC: 0x00\n")
  os.kill(os.getpid(), signal.SIGSEGV)


def mistake(config, slice_, *, tell):
  raise UsageError(f"{config} does not suit {slice_.name}")


def fault(config, slice_, *, tell):
  tell("about to fail")
  raise ZeroDivisionError("no such thing\nand more")


def dawdle(config, slice_, *, tell):
  tell("dawdling")
  while not os.path.exists(config):
    time.sleep(0.05)
  return compiled()


@pytest.mark.slow
@pytest.mark.parametrize(
  ("slice_", "advice"),
  [("v3-8", "another slice"), ("v6e-16", 'another may work, see "v6e" in')],
)
def test_a_crash_of_the_compiler_is_one_sentence(slice_, advice):
  said = rf"ended with -11 .*{slice_}: SIGSEGV.*{advice}"
  with pytest.raises(RunError, match=said) as told:
    apart.compile_apart(crash, None, slices.find(slice_), stream=io.StringIO())
  assert "\n" not in str(told.value)


@pytest.mark.slow
def test_a_mistake_found_by_the_child_is_told():
  with pytest.raises(UsageError, match="this does not suit v3-8"):
    apart.compile_apart(
      mistake, "this", slices.find("v3-8"), stream=io.StringIO()
    )


@pytest.mark.slow
def test_a_fault_of_ours_is_one_sentence():
  with pytest.raises(RunError, match=r"\(ZeroDivisionError: no such thing\)"):
    apart.compile_apart(fault, None, slices.find("v3-8"), stream=io.StringIO())


@pytest.mark.slow
def test_a_long_compilation_tells_how_long_it_takes(monkeypatch, tmp_path):
  monkeypatch.setattr(apart, "_SECONDS_BETWEEN_NOTES", 0.3)
  told = tmp_path / "told"

  class Notes(io.StringIO):
    def write(self, text):
      if text.startswith("dawdling, "):
        told.touch()  # for which the compilation waits
      return super().write(text)

  slice_ = slices.find("v3-8")
  found = apart.compile_apart(dawdle, str(told), slice_, stream=Notes())
  assert found == compiled()


def preflight(out, *flags, config="configs/byol_digits.py"):
  command = [sys.executable, "-m", "byol_flax.main", "preflight"]
  return subprocess.Popen(
    [*command, f"--config={config}", f"--out={out}", *flags],
    cwd=trainers.ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    # As a user has it.
    env={k: v for k, v in os.environ.items() if k not in conftest.FOR_LIBTPU},
  )


@pytest.mark.slow
def test_two_preflights_at_once(tmp_path, tpu_compiler):
  """One of them with 1,437 images of 8 × 8, which lie on every device."""
  outs = [tmp_path / "a.json", tmp_path / "b.json"]
  command = (
    "--slice=v3-8",
    "--config.augment.cache=none",
    "--config.model.encoder.architecture=basic:1:16:16",
    "--config.model.encoder.width=1",
    "--config.model.projector.hidden_size=64",
    "--config.model.predictor.hidden_size=64",
  )
  runs = [
    preflight(outs[0], *command),
    preflight(
      outs[1], *command, "--fast", "--price=3", "--config.augment.cache=device"
    ),
  ]
  sizes = []
  for run, out in zip(runs, outs, strict=True):
    words, errors = run.communicate(timeout=600)
    assert (run.returncode, errors) == (0, ""), errors
    assert "fits: " in words
    answer = json.loads(out.read_text())
    assert answer["step"]["fits"]
    assert answer["run"]["hours"] > 0
    assert answer["config"]["batch_size"] == 64
    sizes.append(answer["step"]["argument_bytes"])
  assert sizes[1] - sizes[0] > 1437 * 8 * 8 * 3 / 2
  assert answer["extrapolated"]
  assert answer["run"]["price"] == pytest.approx(
    3 * answer["run"]["device_hours"]
  )


@pytest.mark.slow
def test_images_that_are_not_there_cannot_be_counted(tmp_path, tpu_compiler):
  run = preflight(
    tmp_path / "out.json",
    "--slice=v3-8",
    "--config.data.name=cifar10",
    "--config.data.split=train",
    "--config.evaluation.every_steps=0",
    "--config.augment.cache=device",
    f"--config.loader.data_dir={tmp_path}",
  )
  _, errors = run.communicate(timeout=600)
  assert run.returncode == 2
  assert "they are not on this machine" in errors


def linger(config, slice_, *, tell):
  tell("lingering")
  time.sleep(600)


LINGERING = """
import sys
from byol_flax import slices
from byol_flax.preflight import apart
from tests.preflight.test_preflight_command import linger
apart._SECONDS_BETWEEN_NOTES = 0.3
apart.compile_apart(linger, None, slices.find("v3-8"), stream=sys.stdout)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_preflight_leaves_no_compiler(number):
  with subprocess.Popen(
    [sys.executable, "-c", LINGERING],
    cwd=trainers.ROOT,
    stdout=subprocess.PIPE,
    text=True,
  ) as run:
    assert any(line.startswith("lingering, ") for line in run.stdout)
    children = processes.children(run.pid)
    assert all(map(processes.lives, children))
    run.send_signal(number)
  until = time.monotonic() + 120
  while any(map(processes.lives, children)) and time.monotonic() < until:
    time.sleep(0.1)
  assert not any(map(processes.lives, children))


@pytest.mark.slow
@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--slice=v3-32", "--config.batch_size=65"], "batch_size 65 cannot"),
    (["--slice=v3-8", "--price=-1"], "--price is -1.0"),
    (["--slice=v3-8", "--price=nan"], "--price is nan"),
    (["--slice=v3-8", "--encoder=random:x"], "--encoder is for evaluations"),
  ],
)
def test_mistakes_are_told(tmp_path, flags, words, tpu_compiler):
  run = preflight(tmp_path / "out.json", *flags)
  _, errors = run.communicate(timeout=600)
  assert run.returncode == 2
  assert words in errors
  assert len(errors.splitlines()) == 1
  assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--slice=v3-9"], "There is no slice 'v3-9'"),
    (["--slice=v3-8", "--out=/nowhere/x.json"], "there is no folder /nowhere"),
    (["--slice=v3-8", "--out=/tmp"], "Cannot write /tmp: it is a folder"),
  ],
)
def test_mistakes_are_told_in_the_process_of_the_command(
  flags, words, tpu_compiler, monkeypatch
):
  for name in ("JAX_PLATFORMS", *conftest.FOR_LIBTPU):  # which it sets
    monkeypatch.setenv(name, os.environ[name])
  with pytest.raises(UsageError, match=words):
    main.main(["preflight", "--config=configs/byol_digits.py", *flags])
