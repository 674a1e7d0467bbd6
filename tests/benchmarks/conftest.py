"""The benchmarks compare with torch, which not everybody has."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["test_benchmarks.py"]
