"""The service: spec, grid, data, training, checkpoints, store, scheduling, command line."""

from fsspec.config import conf

# Other machines write into a sweep's storage: a listing that fsspec remembers is one that has gone stale.
for _protocol in ("s3", "s3a", "gs", "gcs", "abfs", "az"):
    conf.setdefault(_protocol, {})["use_listings_cache"] = False
