"""The programs that each protocol of evaluation runs, and how often.

They are those that the evaluation itself makes. Here they are only given shapes
for arrays, so that they can be compiled for devices that are not there.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from byol_flax.evaluation import (
  features,
  finetune,
  knn,
  lbfgs,
  linear,
  linear_heads,
  logistic,
  rows,
  splits,
  whole_network,
)
from byol_flax.evaluation import neighbours as neighbours_lib
from byol_flax.preflight import dense_programs
from byol_flax.preflight.jobs import Count, Job, Program
from input_pipeline import subsets

# Arguments of a program; it is the same whatever they are.
_SGD = whole_network.Sgd(
  peak=1.0, warmup_steps=0, total_steps=1, weight_decay=1.0
)


def _linear(job: Job) -> list[Program]:
  config, encoder, train = job.config, job.encoder, job.counts["train_split"]
  linear.check(config, train, job.mesh)
  total_steps = splits.total_steps(config.epochs, train, config.batch_size)
  create, update = linear.make_functions(
    config,
    encoder,
    job.mesh,
    num_classes=job.num_classes,
    total_steps=total_steps,
  )
  state = job.whole(jax.eval_shape(create))
  # On valid after so many updates, at the end of them, and for the choice.
  often = config.evaluate_every_steps
  looks = -(-total_steps // often) if often else 1
  passes = (looks + 1) * job.calls("valid_split") + job.calls("test_split")
  sweeps = len(config.augmentations)
  return [
    Program(
      name="update",
      function=update,
      arguments=(state, encoder.variables, job.batch),
      calls=sweeps * total_steps,
    ),
    Program(
      name="guess",
      function=linear_heads.make_guess_fn(encoder, job.mesh),
      arguments=(
        {"encoder": encoder.variables, "weights": state.weights},
        job.images,
      ),
      calls=sweeps * passes,
      beside=state.momentum,
    ),
  ]


def _whole_network(
  job: Job, updates: int, passes: int, name: str = "guess"
) -> list[Program]:
  """Trainings of the whole network, and what each is scored by.

  Args:
    job: the evaluation.
    updates: of all trainings.
    passes: batches that are read for scores.
    name: of that program, which gives the scores.
  """
  encoder = job.encoder
  splits.check_batch(job.config.batch_size, job.counts["train_split"], job.mesh)
  functions = whole_network.make_functions(
    job.config, encoder, job.mesh, num_classes=job.num_classes
  )
  state = job.whole(jax.eval_shape(functions.create_state, encoder.variables))
  return [
    Program(
      name="update",
      function=functions.update,
      arguments=(state, job.batch, _SGD),
      calls=updates,
      beside=encoder.variables,  # for the next training
    ),
    Program(
      name=name,
      function=getattr(functions, name),
      arguments=(
        {"params": state.params, "batch_stats": state.batch_stats},
        job.images,
      ),
      calls=passes,
      beside=(encoder.variables, state.momentum),
    ),
  ]


def _finetune(job: Job) -> list[Program]:
  config = job.config
  tried = len(finetune.within(config, list(finetune.points(config))))
  return _whole_network(
    job,
    (tried + 1) * config.steps,  # the chosen point is trained once more
    tried * job.calls("valid_split") + job.calls("test_split"),
    "logits",
  )


def _semi_supervised(job: Job) -> list[Program]:
  config, train = job.config, job.counts["train_split"]
  if config.subset_file:
    parts = [len(subsets.names_in(config.subset_file))]
  elif config.subset_data:
    parts = [len(job.counts["subset_data"])]
  else:
    # About: of each class a whole number is drawn, and at least one.
    parts = [max(round(s * len(train)), job.num_classes) for s in config.shares]
  updates = 0
  for images, epochs in itertools.product(parts, config.epochs):
    part = Count(f"a part of {train.split}", images)
    splits.check_batch(config.batch_size, part, job.mesh)
    splits.check_epochs(epochs, part, config.batch_size)
    updates += len(config.learning_rates) * splits.total_steps(
      epochs, part, config.batch_size
    )
  points = len(config.epochs) * len(config.learning_rates)
  passes = points * job.calls("valid_split") + job.calls("test_split")
  return _whole_network(job, updates, len(parts) * passes)


def _supervised(job: Job) -> list[Program]:
  config, train = job.config, job.counts["train_split"]
  splits.check_epochs(config.epochs, train, config.batch_size)
  updates = splits.total_steps(config.epochs, train, config.batch_size)
  return _whole_network(job, updates, job.calls("test_split"))


def _knn(job: Job) -> list[Program]:
  variables, mesh = job.encoder.variables, job.mesh
  represent = _represent(job, "train_split", "test_split")
  y = jax.eval_shape(represent.function, variables, job.images)
  size, width = y["representation"].shape
  kept = job.calls("train_split")
  bank = _bank(job, kept * size, width)
  values = job.cut(y["representation"].dtype, size, width)
  label, mask = job.cut(jnp.int32, size), job.cut(jnp.bool_, size)
  return [
    dataclasses.replace(represent, beside=bank),
    Program(
      name="write",
      function=rows.write,
      arguments=(bank, values, label, mask, np.int32(0)),
      static={"mesh": mesh},
      calls=kept,
      beside=variables,
    ),
    *_search(
      job,
      bank,
      values,
      neighbours=max(job.config.neighbours),
      searches=job.calls("test_split"),
    ),
  ]


def _few_label(job: Job) -> list[Program]:
  """Features of each representation, and the search of its neighbours."""
  chosen = job.config.representations
  raw = sum(name == "raw_pixels" for name in chosen)
  represent = _represent(job, "train_split", "test_split")
  found = []
  if encoders := len(chosen) - raw:
    # Random weights lie beside those that are evaluated.
    beside = job.encoder.variables if "random_encoder" in chosen else ()
    one = dataclasses.replace(represent, beside=beside)
    found += _compared(job, one, encoders)
  if raw:
    pixels = dataclasses.replace(
      represent,
      name="pixels",
      function=features.make_raw_fn(job.mesh),
      arguments=({}, job.images),
      beside=job.encoder.variables,
    )
    found += _compared(job, pixels, raw, of=" pixels")
  return found


def _compared(
  job: Job, extract: Program, times: int, of: str = ""
) -> list[Program]:
  """Programs that so many representations of one shape go through.

  Args:
    job: the evaluation.
    extract: gives such a representation for all images.
    times: how many there are.
    of: ends the names of the other programs.
  """
  y = jax.eval_shape(extract.function, *extract.arguments)["representation"]
  count = features.shared_size(len(job.counts["train_split"]), job.mesh)
  queries = job.whole(
    jax.ShapeDtypeStruct((knn.AT_ONCE, y.shape[1]), jnp.float32)
  )
  programs = [
    extract,
    *_search(
      job,
      _bank(job, count, y.shape[1]),
      queries,
      neighbours=job.config.neighbours,
      searches=-(-len(job.counts["test_split"]) // knn.AT_ONCE),
    ),
  ]
  return [
    dataclasses.replace(
      program,
      name=program.name if program is extract else f"{program.name}{of}",
      calls=times * program.calls,
    )
    for program in programs
  ]


def _bank(job: Job, size: int, width: int) -> rows.Rows:
  """Rows of features that are cut among the devices."""
  shapes = jax.eval_shape(
    lambda: rows.zeros(size=size, width=width, mesh=job.mesh)
  )
  bank: rows.Rows = jax.tree.map(lambda x: job.cut(x.dtype, *x.shape), shapes)
  return bank


def _search(
  job: Job,
  bank: rows.Rows,
  queries: jax.ShapeDtypeStruct,
  *,
  neighbours: int,
  searches: int,
) -> list[Program]:
  """Programs that make rows a bank and look for neighbours in it."""
  variables, mesh = job.encoder.variables, job.mesh
  own_rows = len(bank.label) // mesh.size
  return [
    Program(
      name="scale",
      function=neighbours_lib.scale,
      arguments=(bank,),
      calls=1,
      beside=variables,
    ),
    Program(
      name="search",
      function=neighbours_lib.nearest,
      arguments=(bank, queries),
      static={"k": neighbours, "mesh": mesh},
      calls=searches,
      beside=variables,
      loops=neighbours_lib.count_tiles(own_rows, queries.shape),
    ),
  ]


def _transfer(job: Job) -> list[Program]:
  """Features, and the last fit: of one penalty, on train and valid together."""
  train, valid = (
    len(job.counts[name]) if name in job.counts else 0
    for name in ("train_split", "valid_split")
  )
  count = features.shared_size(train + valid, job.mesh)
  width = job.encoder.representation.shape[-1]
  kind = jax.dtypes.canonicalize_dtype(float)
  params, squares, scalar, most = job.whole(
    (
      jax.ShapeDtypeStruct((width + 1, job.num_classes), kind),
      jax.ShapeDtypeStruct((width + 1, 1), kind),
      jax.ShapeDtypeStruct((), kind),
      jax.ShapeDtypeStruct((), jnp.int32),
    )
  )
  labels = (count, job.num_classes) if job.several else (count,)
  x: Any = job.cut(kind, count, width)
  y: Any = job.cut(jnp.int32, *labels)
  return [
    _represent(job, "train_split", "valid_split", "test_split"),
    Program(
      name="fit",
      function=logistic.solver(
        job.mesh, logistic.BINARY if job.several else logistic.MULTINOMIAL
      ),
      arguments=(lbfgs.Problem(x, squares, y), params, scalar, scalar, most),
      calls=0,
      beside=job.encoder.variables,
    ),
  ]


def _represent(job: Job, *names: str) -> Program:
  return Program(
    name="represent",
    function=features.make_feature_fn(job.encoder, job.mesh),
    arguments=(job.encoder.variables, job.images),
    calls=job.calls(*names),
  )


@dataclasses.dataclass(frozen=True)
class Protocol:
  """What preflight knows of a protocol.

  Attributes:
    programs: job -> its programs, the one that takes most memory first.
    trains: whether a batch size is a part of the result.
    left_out: what of it the hours do not hold, beside what is true of all.
  """

  programs: Callable[[Job], list[Program]]
  trains: bool
  left_out: str


PROTOCOLS = {
  "depth": Protocol(
    dense_programs.depth,
    trains=True,
    left_out="the measures of the mean depth, pictures",
  ),
  "detection": Protocol(
    dense_programs.detection,
    trains=True,
    left_out="that most updates have a smaller canvas, pictures",
  ),
  "few_label": Protocol(
    _few_label,
    trains=False,
    left_out="votes and regressions, for which each host holds all features",
  ),
  "finetune": Protocol(_finetune, trains=True, left_out=""),
  "knn": Protocol(_knn, trains=False, left_out="votes, which hosts count"),
  "linear": Protocol(_linear, trains=True, left_out=""),
  "segmentation": Protocol(
    dense_programs.segmentation, trains=True, left_out="pictures"
  ),
  "semi_supervised": Protocol(_semi_supervised, trains=True, left_out=""),
  "supervised": Protocol(_supervised, trains=True, left_out=""),
  "transfer": Protocol(
    _transfer, trains=False, left_out="the fits by L-BFGS, save for memory"
  ),
}
