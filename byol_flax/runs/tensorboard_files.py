"""Event files of TensorBoard; the only module that uses CLU's writers."""

import os
import socket
import time
from typing import Any

from etils import epath


class Unwritten:
  """Takes CLU's place where it cannot be imported; writes nothing."""

  def _ignore(self, *_: Any) -> None:
    pass

  write_scalars = write_images = write_texts = write_hparams = _ignore
  flush = close = _ignore


def open_writer(folder: epath.Path, resume_step: int) -> tuple[Any, str]:
  """Opens CLU's writer of event files, asynchronous and quiet.

  Hyperparameters, texts and images of the first start stay. So of those that
  every start would write, only the first start writes any.

  Returns:
    The writer, and a sentence if TensorFlow or another library is missing. In
    that case the writer is an `Unwritten`, and no file is made.
  """
  # TensorFlow computes nothing here, so what it says while it loads is of no
  # use. Its notice about oneDNN ignores the log level; the second variable
  # stops that one.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  # Imported here because TensorFlow takes seconds to load, and processes that
  # do not write can do without it.
  try:
    from clu import metric_writers

    _mark_start(folder, resume_step)
  except ImportError as error:
    missing = error.name or str(error)
    return Unwritten(), (
      f"TensorBoard's files are left out, because {missing} cannot be "
      "imported; metrics.jsonl has every metric"
    )
  writer = metric_writers.SummaryWriter(str(folder))
  return metric_writers.AsyncWriter(writer), ""


def _mark_start(folder: epath.Path, resume_step: int) -> None:
  """Tells TensorBoard which events of earlier starts are no longer true.

  A reader drops them when it meets a START event that is not the first of the
  run (`plugin_event_accumulator`). Runs of older versions have no first one, so
  each start writes two. TensorBoard's data server in Rust needs none: there a
  step replaces equal and later steps of the same name.
  """
  from tensorboard.compat.proto import event_pb2
  from tensorboard.summary.writer import record_writer

  start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
  # The events of the update that is resumed from stay.
  first_again = resume_step + 1 if resume_step else 0
  # Files are read in the order of their names; CLU's has a dot for the dash.
  name = f"{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}-start"
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / f"events.out.tfevents.{name}").open("wb") as file:
    records = record_writer.RecordWriter(file)
    for what in (
      {"file_version": "brain.Event:2"},
      *2 * [{"step": first_again, "session_log": start}],
    ):
      event = event_pb2.Event(wall_time=time.time(), **what)
      records.write(event.SerializeToString())
