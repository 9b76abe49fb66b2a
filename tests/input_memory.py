"""Memory of the trainer and its input workers over many images.

Command: python -m tests.input_memory --images=20000
Reads photographs as training on ImageNet would and prints the resident memory
of every process now and then. Slots that were written to count for the trainer
and the worker both.
"""

import argparse
import multiprocessing
import os

from byol_flax.benchmarks import memory, photographs
from byol_flax.pretrain import inputs
from configs import byol
from input_pipeline import loading, pipeline, sources
from input_pipeline.unreadable import UnreadableImages

ROWS = 64


def resident(pid):
  """MiB of a process: its own, and what it shares with others."""
  own, shared = (
    memory.of_process(name, pid) // 2**20 for name in ("RssAnon", "RssShmem")
  )
  return f"{own:6,} + {shared:3}"


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--images", type=int, default=20_000)
  parser.add_argument("--workers", type=int, default=2)
  options = parser.parse_args()
  from absl import flags

  flags.FLAGS.mark_as_parsed()
  config = byol.get_config()
  source = sources.ReadableSource(photographs.Photographs())
  transform = inputs.make_two_views(config.augment)
  how = loading.choose_loading(
    num_workers=options.workers,
    num_threads=1,
    rows=ROWS,
    row_bytes=transform.row_bytes,
  )
  batches = pipeline.train_iterator(
    pipeline.view_stream(source, transform, 0),
    how,
    rows=ROWS,
    start_step=0,
    process_index=0,
    process_count=1,
    unreadable=UnreadableImages(source, "/dev/null", 1.0),
  )
  print(how)
  print("images    trainer, then workers: MiB of their own + shared")
  done = 0
  while done < options.images:
    next(batches)
    done += ROWS
    if done % 1984 == 0 or done >= options.images:
      children = sorted(
        multiprocessing.active_children(), key=lambda child: child.pid
      )
      pids = [os.getpid(), *(child.pid for child in children)]
      print(f"{done:6,}  {'  '.join(map(resident, pids))}", flush=True)
  batches.close()


if __name__ == "__main__":
  main()
