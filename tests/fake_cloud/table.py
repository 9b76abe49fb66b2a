"""Prints how every case of cases.py ends, and the slice-minutes paid for.

  python -m tests.fake_cloud.table [--before=COMMIT]

It exits with 1 if a case did not end as it must. With --before each is played
to the launcher of that commit, too. 80179bd~1 is the last that was written in
Bash. It gets the same run in the same cloud, without the options that it does
not know. What has not ended after as many looks as `playing.NO_END` has no end.

With one look a minute each look at a slice that is READY is a minute that is
paid for, see google/gcloud.py.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from tests.fake_cloud.cases import CASES, SPOT, Case
from tests.fake_cloud.fixtures import clone
from tests.fake_cloud.playing import Played, play, play_now, problems
from tests.fake_cloud.rig import ROOT, Rig, git


def play_before(rig: Rig, case: Case) -> Played:
  """Plays a case to the launcher of before `--delete` and its like."""
  arguments = [x for x in SPOT if x != "--yes"] + ["--delete-when-done"]
  for word in case.arguments:
    name, _, value = word.partition("=")
    if name == "--max-restarts":
      rig.environment["BYOL_MAX_RESTARTS"] = value
    elif name in ("--queued", "--on-demand"):
      arguments.append(word)
  rig.environment["BYOL_STRAGGLER_SECONDS"] = "1"  # it knew whole ones only
  return play(rig, case, arguments)


def repository_of(commit: str, folder: pathlib.Path) -> pathlib.Path:
  """A repository in `folder` of what the launcher of a commit needs."""
  folder.mkdir()
  names = ("launch", "configs", ".gitignore", "pyproject.toml")
  packed = subprocess.run(
    ["git", "-C", str(ROOT), "archive", commit, *names, "constraints.txt"],
    stdout=subprocess.PIPE,
    check=True,
  )
  subprocess.run(
    ["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True
  )
  git(folder, "init", "--quiet")
  git(folder, "add", ".")
  git(folder, "commit", "--quiet", "--message=all")
  return folder


def main() -> int:
  """Prints the table; returns the exit status."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--before", metavar="COMMIT")
  before = parser.parse_args().before
  columns = ["case", "now", "slice-minutes"]
  columns += [f"at {before}", "slice-minutes"] if before else []
  print(_row(columns), _row(["---"] * len(columns)), sep="\n")
  wrong = []
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    now = clone(folder / "now")
    old = repository_of(before, folder / "before") if before else None
    for number, (name, case) in enumerate(CASES.items()):
      cells = [name]
      for repository, player in ((now, play_now), (old, play_before)):
        if repository is None:
          continue
        cloud = folder / f"{repository.name}-{number}"
        cloud.mkdir()
        played = player(Rig(repository, cloud), case)
        goes_on = player is play_now and case.status is None
        cells += ["goes on" if goes_on else played.outcome, played.bill]
        if player is play_now:
          wrong += [f"{name}: {text}" for text in problems(case, played)]
      print(_row(cells), flush=True)
  for sentence in wrong:
    print(sentence, file=sys.stderr)
  return 1 if wrong else 0


def _row(cells: Sequence[str]) -> str:
  return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
  sys.exit(main())
