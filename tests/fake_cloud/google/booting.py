"""The machines of a slice: their environment, their metadata, their boot."""

import pathlib

from tests.fake_cloud.google.state import cloud_folder, node_folder

BIN = pathlib.Path(__file__).parents[1] / "worker_bin"


def worker_environment(cloud, worker):
  environments = cloud.plan.get("environment", [])
  extra = environments[worker] if worker < len(environments) else {}
  return {
    "HOME": str(node_folder() / f"worker-{worker}"),
    "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
    "FAKE_PYTHON": cloud.plan.get("python", ""),
    "FAKE_HOST": f"t1v-n-fake-w-{worker}",
    "FAKE_MACHINE": ",".join(extra),  # what its services see, too
    **extra,
  }


def read_metadata(options):
  """Keys and values of both flags, as SDK 528 reads them.

  See calliope/arg_parsers.py and api_lib/compute/metadata_utils.py there.
  """
  given = _dictionary(options.metadata)
  for key, path in _dictionary(options.metadata_from_file).items():
    assert key not in given, f"Encountered duplicate metadata key [{key}]."
    given[key] = pathlib.Path(path).read_text()
  return given


def _dictionary(text):
  delimiter, text = ",", text or ""
  if text.startswith("^") and "^" in text[1:]:
    delimiter, text = text[1:].split("^", 1)
  entries = text.removesuffix(delimiter).split(delimiter) if text else []
  return dict(entry.split("=", 1) for entry in entries)


def make_machines(cloud, metadata):
  """Machines with empty disks; the old ones are kept.

  Where commands really run, so does the start-up script: from a file that is
  gone afterwards, and the boot waits for it.
  """
  import shutil  # these cost a call in its own process a fifth of its time
  import subprocess

  if node_folder().exists():
    node_folder().rename(
      cloud_folder() / f"node-before-{len(list(cloud_folder().glob('node*')))}"
    )
  for worker in cloud.workers:
    home = node_folder() / f"worker-{worker}"
    (home / "metadata").mkdir(parents=True)
    for key, value in metadata.items():
      (home / "metadata" / key).write_text(value)
    script = home / "metadata/startup-script"
    if cloud.plan.get("python") and script.exists():
      copy = home / "startup-script"
      shutil.copy(script, copy)
      copy.chmod(0o755)
      environment = worker_environment(cloud, worker) | {"TMPDIR": str(home)}
      subprocess.run([copy], env=environment, check=True, timeout=600)
      copy.unlink()
