"""GKE and SkyPilot: their files against published schemas and our own trainer.

The schemas come from packages that the project does not need otherwise; to
check with them: pip install jsonschema kubeflow-trainer-api skypilot.
"""

import math
import os
import pathlib
import re
import subprocess

import pytest
import yaml

from byol_flax.commands import config_file
from tests.fake_cloud.rig import ROOT


def read(name):
  return yaml.safe_load((ROOT / "launch" / name).read_text())


def package(name, what):
  return pytest.importorskip(
    name, reason=f"{what} needs `pip install {name.split('.')[0]}`"
  )


def strict(schema):
  """The schema in which an object has no keys but those that are named.

  A quantity, such as 4 or "4Gi", is a class of its own in the models.
  """
  if isinstance(schema, dict):
    if "one_of_schemas" in schema.get("properties", {}):
      return {"type": ["string", "number"]}
    if "properties" in schema and "additionalProperties" not in schema:
      schema = {**schema, "additionalProperties": False}
    return {key: strict(value) for key, value in schema.items()}
  return [strict(x) for x in schema] if isinstance(schema, list) else schema


def test_the_jobset_fits_its_schema():
  """That of JobSet v1alpha2 and of Kubernetes' Job, as Kubeflow has them."""
  what = "The schema of JobSet"
  jsonschema = package("jsonschema", what)
  models = "kubeflow_trainer_api.models"
  model = package(
    f"{models}.jobset_v1alpha2_job_set", what
  ).JobsetV1alpha2JobSet
  schema = strict(model.model_json_schema(by_alias=True))
  manifest = read("gke/jobset.yaml")
  jsonschema.validate(manifest, schema)
  manifest["spec"]["failurePolicy"]["rules"][0]["onExitCode"] = 75
  with pytest.raises(jsonschema.ValidationError, match="onExitCode"):
    jsonschema.validate(manifest, schema)


def test_the_skypilot_task_fits_its_schema():
  what = "The schema of SkyPilot"
  jsonschema = package("jsonschema", what)
  schemas = package("sky.utils.schemas", what)
  task = read("skypilot.yaml")
  jsonschema.validate(task, schemas.get_task_schema())
  jsonschema.validate(task["resources"], schemas.get_resources_schema())
  task["resources"]["job_recovery"]["recover_on_exit_codes"] = [256]
  with pytest.raises(jsonschema.ValidationError):
    jsonschema.validate(task["resources"], schemas.get_resources_schema())


def pods_of_slice():
  """(specification of the Job, that of its pods) in the JobSet."""
  (job,) = read("gke/jobset.yaml")["spec"]["replicatedJobs"]
  spec = job["template"]["spec"]
  return spec, spec["template"]["spec"]


def test_exit_codes_of_a_pod_lead_to_what_the_launcher_would_do():
  """Played by the rules of Job and JobSet: the first that matches counts."""
  spec, _ = pods_of_slice()
  policy = read("gke/jobset.yaml")["spec"]["failurePolicy"]

  def action(code):
    told = spec["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert told["operator"] == "In"
    reason, message = "BackoffLimitExceeded", "Job has reached the limit"
    if code in told["values"]:
      reason = "PodFailurePolicy"
      message = f"Container byol for pod a/b failed with exit code {code} "
      message += "matching FailJob rule at index 0"
    for rule in policy["rules"]:
      patterns = rule.get("onJobFailureMessagePatterns", [""])
      matches = any(re.search(pattern, message) for pattern in patterns)
      if reason in rule["onJobFailureReasons"] and matches:
        return rule["action"]
    return "RestartJobSet"

  assert action(75) == action(143) == "RestartJobSetAndIgnoreMaxRestarts"
  assert action(2) == "FailJobSet"
  assert action(1) == action(137) == "RestartJobSet"
  assert policy["maxRestarts"] > 0


def test_the_jobset_fills_its_slice_with_what_byol_train_understands():
  spec, pod = pods_of_slice()
  (container,) = pod["containers"]
  sides = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
  chips = math.prod(map(int, sides))
  assert container["resources"]["limits"]["google.com/tpu"] * 4 == chips
  assert spec["parallelism"] == spec["completions"] == 4
  assert spec["backoffLimit"] == 0
  assert pod["restartPolicy"] == "Never"
  verb, *words = container["args"]
  assert verb == "train"
  config = config_file.load_config([w for w in words if "--config" in w])
  assert config.batch_size % chips == 0
  assert config.loader.stage_dir == "/dev/shm/byol"
  assert {mount["mountPath"] for mount in container["volumeMounts"]} == {
    "/dev/shm"
  }


def test_the_image_has_all_that_the_package_has():
  text = (ROOT / "launch/gke/Dockerfile").read_text()
  copied = set()
  for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
    copied |= set(line.split()[:-1])
  assert all((ROOT / name).exists() for name in copied)
  packages = re.search(
    r"packages\.find\]\ninclude = \[(.+)\]",
    (ROOT / "pyproject.toml").read_text(),
  )[1]
  assert {x.strip('" *') for x in packages.split(",")} <= copied


@pytest.mark.parametrize(
  ("extra", "nodes", "more"),
  [
    ("tpu", 4, []),
    ("cuda", 1, []),
    (
      "cuda",
      2,
      [
        "--coordinator=10.0.0.1:8476",
        "--process-count=2",
        "--process-index=1",
      ],
    ),
  ],
)
def test_what_skypilot_runs_on_a_host(tmp_path, extra, nodes, more):
  task = read("skypilot.yaml")
  python = tmp_path / "byol-venv" / "bin" / "python"
  python.parent.mkdir(parents=True)
  python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
  python.chmod(0o755)
  environment = {
    "PATH": os.environ["PATH"],
    "HOME": str(tmp_path),
    **task["envs"],
    "EXTRA": extra,
    "RUN_DIR": "gs://bucket/a b",
    "DATA_DIR": "gs://bucket/tfds",
    "SKYPILOT_NUM_NODES": str(nodes),
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2\n",
  }
  result = subprocess.run(
    ["bash", "-c", task["run"]],
    env=environment,
    capture_output=True,
    text=True,
    check=True,
  )
  assert result.stdout.splitlines() == [
    *["-m", "byol_flax.main", "train", "--config=configs/byol_r50x1.py"],
    "--workdir=gs://bucket/a b",
    "--config.loader.data_dir=gs://bucket/tfds",
    *more,
  ]
  assert (pathlib.Path(ROOT) / task["envs"]["CONFIG"]).is_file()
