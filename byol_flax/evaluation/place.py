"""The folder of one evaluation, to which no other may write."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

import jax
from etils import epath

from byol_flax.runs import goodput, run_files, same_data
from byol_flax.runs.distributed import Processes
from byol_flax.runs.workdir import differences
from input_pipeline import dense_sources, sources, whole_files
from input_pipeline.errors import UsageError

RESULT = "result.json"
IDENTITY = "evaluation.json"
LISTS = "unreadable"  # folder of what could not be read, see `unread`
# In the same file, beside what identifies an evaluation.
_IMAGES = "images"  # see `claim_images`
_MAKERS = "made_by"  # see `note_maker`
# What is kept for other starts, and who made it if nothing tells.
_KEPT = ("scores*.json", "penalties.json", "features-*.npz", "*/checkpoints/*")
_OLDER = {"code_version": "an older version", "devices": "unknown devices"}
# These may change when an evaluation goes on.
MAY_CHANGE = (
  "config.num_workers.",
  "config.num_threads.",
  "config.data_dir.",
  "config.checkpoint.",
  "config.deadlines.",
  "config.layout.",
  "config.classes_file.",  # `claim_images` compares the classes themselves
  "config.report_every_steps.",
  "config.max_unreadable_share.",
  "encoder.code_version.",  # of random weights it is that of the evaluation
  # Older records lack these. Other devices may round random weights otherwise.
  "encoder.trained_by.",
  "encoder.weights_digest.",
)
# A key that a config got after its first version -> the value with which
# today's code does what the code without the key did.
_ADDED_SINCE = {
  "valid_per_class": 0,
  "train_size": 0,
  "valid_size": 0,
  "test_size": 0,
  "layout": "",
  "subset_data": "",
  "rand_augment": {"layers": 0, "magnitude": 9.0},
}
# What the record of an encoder got after its first version.
_ADDED_TO_ENCODERS = ("config_digest", "image_size", "crop_ratio")


def claim(
  workdir: str, identity: Mapping[str, Any], processes: Processes
) -> None:
  """Makes `workdir` the folder of this evaluation, if it is not yet.

  Process 0 alone looks and writes; the others wait for it, and are refused when
  it is.

  Args:
    workdir: absolute path or gs://BUCKET/PATH; the caller keeps others out of
      it, see `workdir.taken`.
    identity: a JSON object that tells what is evaluated, and how.
    processes: all that take part.

  Raises:
    UsageError: it is the folder of a run, or of another evaluation.
  """

  def act() -> None:
    if jax.process_index() == 0:
      _claim(epath.Path(workdir, IDENTITY), identity)

  processes.together(act)


def _claim(path: epath.Path, identity: Mapping[str, Any]) -> None:
  """What process 0 does."""
  workdir = path.parent
  now = json.loads(json.dumps(identity))
  if not path.exists():
    if any(not _is_half(entry) for entry in run_files.written(workdir)):
      raise UsageError(
        f"{workdir} is the folder of a training run. Give the evaluation a "
        "--workdir of its own."
      )
    _write(path, now)
    return
  before = whole_files.read_object(path)
  for key in (_IMAGES, _MAKERS):
    before.pop(key, None)
  before = completed(before, now)
  added = {k: v for k, v in _ADDED_SINCE.items() if k in now["config"]}
  before["config"] = added | before["config"]
  if different := differences(before, now, MAY_CHANGE):
    kinds = [x["config"].get("protocol") for x in (before, now)]
    if kinds[0] != kinds[1]:
      # Their configs have few keys in common, and nobody would read all others.
      different = [f"config.protocol: {kinds[0]} there, {kinds[1]} now"]
    if _begun(workdir):
      raise UsageError(
        f"{workdir} holds another evaluation ({'; '.join(different)}). Give "
        "another --workdir."
      )
    # What that one could not read is of its splits.
    if (lists := workdir / LISTS).exists():
      lists.rmtree()
    _write(path, now)


def completed(
  before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, Any]:
  """The record `before`, with what an older version did not say in it.

  Both have an "encoder", if the evaluation is of one.
  """
  if "encoder" not in before:
    return dict(before)
  of_now = now.get("encoder", {})
  added = {key: of_now[key] for key in _ADDED_TO_ENCODERS if key in of_now}
  stem = before["encoder"].get("architecture", {}).get("stem")
  if stem == "small" and before["encoder"].get("format") == "torchvision":
    # It was shown what networks for ImageNet are shown.
    added |= {"image_size": 224, "crop_ratio": 0.875}
  return {**before, "encoder": {**added, **before["encoder"]}}


def claim_images(
  workdir: str, key: str, source: sources.Source, processes: Processes
) -> None:
  """Makes the images of a split those of this evaluation, if none are yet.

  What an evaluation has kept, such as features, scores and checkpoints, is of
  the images that it began with. All processes call this.

  Args:
    workdir: that `claim` has made the evaluation's; others are left alone.
    key: of the config that names the split.
    source: the split.
    processes: all that take part.

  Raises:
    UsageError: the evaluation has begun with other images.
  """
  now = same_data.describe(source)
  old = {**now, "data_fingerprint": dense_sources.old_fingerprint(source)}
  if _is_other(workdir, key, now, processes, old):
    raise UsageError(
      f"The images of {source.name} ({key}: {source.split}) are not those that "
      f"the evaluation in {workdir} began with: their fingerprints, or the "
      "names of their classes, differ. Restore them, or give another --workdir."
    )


def claim_names(
  workdir: str, key: str, names: Collection[str], processes: Processes
) -> None:
  """Does for a list of names, whose file a key gives, what `claim_images` does.

  Raises:
    UsageError: the evaluation has begun with other names.
  """
  text = "\0".join(sorted(names))
  digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
  now = {"num_names": len(names), "names_digest": digest}
  if _is_other(workdir, key, now, processes):
    raise UsageError(
      f"The names in the list of {key} are not those that the evaluation in "
      f"{workdir} began with. Restore the list, or give another --workdir."
    )


def list_of(workdir: str, key: str) -> epath.Path:
  """The list of what could not be read of a split when it was measured."""
  return epath.Path(workdir, LISTS, f"unreadable-{key}.txt")


def is_claimed(workdir: str) -> bool:
  """Whether a folder is an evaluation's own."""
  return epath.Path(workdir, IDENTITY).exists()


def images_of(workdir: str) -> dict[str, Any]:
  """What the splits and lists were that an evaluation began with, by key."""
  found: dict[str, Any] = _noted(workdir).get(_IMAGES, {})
  return found


def note_maker(workdir: str, maker: Mapping[str, str]) -> None:
  """Notes who computed something that is kept; the last is at the end.

  Other starts find it, and their results tell who made it. Process 0 calls it.
  """
  if identity := _noted(workdir):
    before = identity.get(_MAKERS, [])
    makers = [*(x for x in before if x != maker), dict(maker)]
    if makers != before:
      _write(epath.Path(workdir, IDENTITY), {**identity, _MAKERS: makers})


def note_older_makers(workdir: str) -> None:
  """Notes who made what is kept, if an older version kept it and did not.

  Process 0 calls it before a start keeps anything.
  """
  folder, identity = epath.Path(workdir), _noted(workdir)
  if not identity or _MAKERS in identity:
    return
  if any(path for pattern in _KEPT for path in folder.glob(pattern)):
    makers = _older_makers(folder)
    _write(folder / IDENTITY, {**identity, _MAKERS: makers})


def makers_of(workdir: str) -> list[dict[str, str]]:
  """Who computed what an evaluation has kept; the last is at the end."""
  found: list[dict[str, str]] = _noted(workdir).get(_MAKERS, [])
  return found


def _older_makers(folder: epath.Path) -> list[dict[str, str]]:
  """What the starts of trainings and the result tell of them."""
  starts = [
    goodput.parsed(line)
    for path in folder.glob(f"*/{goodput.FILE}")
    for line in goodput.lines_of(path)
  ]
  starts.sort(key=lambda start: start.get("wall_time", 0))
  result = whole_files.read_object_if_there(folder / RESULT) or {}
  devices_of: dict[str, str] = {}
  for found in (*starts, result):  # the result alone tells the devices
    if version := found.get("code_version"):
      devices_of.pop(version, None)  # so that the last is at the end
      devices_of[version] = found.get("devices", _OLDER["devices"])
  return [
    {"code_version": version, "devices": devices}
    for version, devices in devices_of.items()
  ] or [_OLDER]


def _noted(workdir: str) -> dict[str, Any]:
  path = epath.Path(workdir, IDENTITY)
  return whole_files.read_object(path) if path.exists() else {}


def _write(path: epath.Path, identity: Mapping[str, Any]) -> None:
  whole_files.write_text(path, json.dumps(identity, indent=2) + "\n")


def _is_other(
  workdir: str,
  key: str,
  now: dict[str, Any],
  processes: Processes,
  old: dict[str, Any] | None = None,
) -> bool:
  """Whether the evaluation began with another split or list of this key.

  `old` is what an older version would have noted for `now`.
  """
  path = epath.Path(workdir, IDENTITY)
  return processes.any(
    jax.process_index() == 0 and _has_other(path, key, now, old)
  )


def _has_other(
  path: epath.Path, key: str, now: dict[str, Any], old: dict[str, Any] | None
) -> bool:
  """The same, on process 0; notes the split or list if there is none yet."""
  if not path.exists():
    return False
  identity = whole_files.read_object(path)
  images = identity.setdefault(_IMAGES, {})
  if images.get(key) == now:
    return False
  if key in images and images[key] != old and _begun(path.parent):
    return True
  if key in images and images[key] != old:
    list_of(str(path.parent), key).unlink(missing_ok=True)
  images[key] = now
  _write(path, identity)
  return False


def _begun(workdir: epath.Path) -> bool:
  """Whether the evaluation of a folder has left anything but its claim.

  It has not if it was refused, say because the data set was absent.
  """
  claim = {IDENTITY, LISTS, run_files.MARKER, run_files.LOCK}
  return any(
    entry.name not in claim and not _is_half(entry)
    for entry in workdir.iterdir()
  )


def _is_half(entry: epath.Path) -> bool:
  """Whether a kill came while the file was written; see `whole_files`."""
  return entry.name.endswith(".tmp")
