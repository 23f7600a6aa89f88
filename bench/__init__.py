"""Benchmarks of the engine and the service: `python -m bench`; what each measures is in docs/benchmarks.md."""
