"""Benchmarks of labkit itself; `make bench` runs them."""
