"""Which paths are in a bucket, by the list of mounts."""

import pytest

from byol_flax.runs import buckets


@pytest.mark.parametrize("path", ["link", "link/run", "link/run/not/yet/there"])
def test_a_link_into_a_mounted_bucket_is_in_the_bucket(tmp_path, path):
  (tmp_path / "bucket" / "run").mkdir(parents=True)
  (tmp_path / "link").symlink_to(tmp_path / "bucket")
  mounts = f"my-bucket {tmp_path}/bucket fuse.gcsfuse rw 0 0\n"
  assert buckets.holds(f"{tmp_path}/{path}", mounts)


def test_a_link_that_leads_out_of_a_bucket_is_not_in_it(tmp_path):
  (tmp_path / "bucket").mkdir()
  (tmp_path / "bucket" / "scratch").symlink_to(tmp_path)
  mounts = f"my-bucket {tmp_path}/bucket fuse.gcsfuse rw 0 0\n"
  assert not buckets.holds(f"{tmp_path}/bucket/scratch/run", mounts)
