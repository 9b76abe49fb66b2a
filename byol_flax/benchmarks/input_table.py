"""`byol benchmark input`: measures every stage and names the slowest."""

import dataclasses
import importlib.util
from typing import Any, TextIO

from byol_flax import sharding
from byol_flax.benchmarks import input_stages, input_whole, photographs
from byol_flax.benchmarks.input_stages import Stage
from byol_flax.benchmarks.input_whole import Rates
from byol_flax.pretrain.places import AugmentConfig
from input_pipeline import loading, sources
from input_pipeline.errors import UsageError


def benchmark(
  config: Any,
  *,
  against_tf: bool,
  image_size: str | None = None,
  stream: TextIO,
) -> dict[str, Any]:
  """Measures the input of a config, stage by stage and as a whole.

  Args:
    config: as made by configs/byol.py.
    against_tf: whether to time tf.data too, which only decodes, crops and
      resizes.
    image_size: such as 4000x3000, to measure synthetic photographs of that
      size.
    stream: console.

  Returns:
    Milliseconds, rates, and what limits the rate.

  Raises:
    UsageError: tf.data cannot read these images.
  """
  size = photographs.parse_size(image_size) if image_size else None
  source, what = photographs.open_images(config, size)
  mesh = sharding.make_mesh()
  stream.write(f"{what}, {len(source):,} of them; views of ")
  stream.write(f"{config.augment.size} pixels\n")
  stages = input_stages.one_core(source, config.augment, config.batch_size)
  found: dict[str, Any] = {
    "images": what,
    "cores": loading.available_cores(),
    "devices": sharding.describe(mesh),
    "stages": [dataclasses.asdict(stage) for stage in stages],
  }
  stream.write(f"{'one core':22}{'ms/image':>10}{'images/s':>12}\n")
  for stage in stages:
    stream.write(
      f"{stage.name:22}{stage.milliseconds:10.4f}"
      f"{stage.images_per_second:12,.0f}\n"
    )
  whole = stages[-1].images_per_second
  decode = [stage for stage in stages if stage.name == "decode"]
  if decode:
    found["share_of_decode_rate"] = whole / decode[0].images_per_second
    stream.write(f"whole / decode alone: {found['share_of_decode_rate']:.2f}\n")
  if against_tf:
    found["tf_data"] = _tf_data(source, config.augment)
    stream.write(
      f"tf.data, decode, crop and resize only: {found['tf_data']:,.0f} "
      f"images/s; ours {whole / found['tf_data']:.2f} times as many\n"
    )
  rates = input_whole.measure(source, config, mesh)
  found["rates"] = dataclasses.asdict(rates)
  _tell_rates(rates, stream)
  found["limit"], found["advice"] = limit(stages, rates, found["cores"])
  stream.write(f"limit: {found['limit']}. {found['advice']}\n")
  return found


def _tell_rates(rates: Rates, stream: TextIO) -> None:
  if rates.num_workers:
    lines = {
      "1 worker": rates.one_worker,
      f"{rates.num_workers} workers": rates.all_workers,
      "hand-over alone": rates.hand_over,
      "transfer to devices": rates.transfer,
    }
  else:
    lines = {
      "in the trainer itself": rates.all_workers,
      "transfer to devices": rates.transfer,
    }
  for name, rate in lines.items():
    stream.write(f"{name:22}{1000 / rate:10.4f}{rate:12,.0f}\n")
  if not rates.num_workers:
    return
  stream.write(
    f"memory of a worker: {rates.worker_bytes / 2**20:,.0f} MiB, including the "
    "code and libraries that all workers share\n"
  )
  if rates.num_workers > 1:
    stream.write(
      f"{rates.num_workers} workers / 1 worker: "
      f"{rates.all_workers / rates.one_worker:.2f}\n"
    )


def limit(stages: list[Stage], rates: Rates, cores: int) -> tuple[str, str]:
  """The stage that limits the rate, and what would lift the limit.

  Args:
    stages: of one core, "whole" last.
    rates: of the whole pipeline.
    cores: of this machine.
  """
  if stages[0].name == "order":  # the images lie on the devices
    return _limit_of_draws(rates)
  if rates.transfer < 1.5 * rates.all_workers:
    return (
      "the transfer to the devices",
      "Fewer bytes for each image would help: --config.augment.cache=device, "
      "if the images fit into the devices' memory.",
    )
  if rates.num_workers and rates.hand_over < 1.5 * rates.all_workers:
    return (
      "handing batches over to the trainer, which one process does",
      "More processes of the trainer would help, or "
      "--config.augment.cache=device, if the images fit into the devices' "
      "memory.",
    )
  listed = sum(stage.milliseconds for stage in stages[:-1])
  if listed < 0.5 * 1000 / rates.one_worker:
    return (
      "what every image costs whatever its size: its number, its random "
      "generator, its way to the trainer",
      "More cores would help, or --config.augment.cache=device, if the images "
      "fit into the devices' memory.",
    )
  slowest = max(stages[:-1], key=lambda stage: stage.milliseconds)
  name = f"{slowest.name}, on the cores of the host"
  if rates.num_workers < cores:
    return name, f"--config.loader.num_workers={cores} uses all cores."
  fixes = {
    "read": "Faster storage would help, or `byol prepare`, which puts the "
    "files into a few shards.",
    "decode": "Smaller images (`byol prepare --longest-side=N`) would help, "
    "--config.augment.scaled_decoding=true for large JPEGs, more cores, or "
    "--config.augment.cache=device, if the images fit into the devices' "
    "memory.",
    "draw": "More cores would help.",
  }
  return name, fixes.get(
    slowest.name,
    "--config.augment.device=accelerator leaves colours and blur to the "
    "devices.",
  )


def _limit_of_draws(rates: Rates) -> tuple[str, str]:
  if rates.transfer < rates.all_workers:
    return (
      "the transfer of the draws to the devices, which takes as long for few "
      "as for many",
      "A larger batch_size means fewer transfers.",
    )
  return (
    "the one thread that draws",
    "Workers would not make it faster. Devices that take fewer images a second "
    "never wait for it.",
  )


def _tf_data(source: sources.Source, settings: AugmentConfig) -> float:
  if importlib.util.find_spec("tensorflow") is None:
    raise UsageError(
      "--against-tf-data needs TensorFlow, which is not installed: pip install "
      "'byol-flax[bench]'"
    )
  from byol_flax.benchmarks import tf_data

  encoded = [source[i]["image"] for i in range(min(64, len(source)))]
  if not all(
    isinstance(image, bytes) and image.startswith(b"\xff\xd8")
    for image in encoded
  ):
    raise UsageError(
      "--against-tf-data needs JPEG files, but not all images of "
      f"{source.name} are JPEG."
    )
  return tf_data.images_per_second(
    encoded, settings.size, settings.view1.crop_area
  )
