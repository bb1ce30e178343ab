"""Benchmarks: what a governed run costs beside a hand-written script that does the same job without any guarantee."""
