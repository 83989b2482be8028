"""`make bench`: the service under load, each figure beside its floor (docs/benchmarks/load.md)."""
