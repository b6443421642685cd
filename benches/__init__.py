"""Benchmarks: `python -m benches.run` prints ours beside the peers; `test_bench_*.py` are pytest-benchmark suites."""
