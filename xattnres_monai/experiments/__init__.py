"""Experiments with networks and bundles: comparisons, attention maps and benchmarks."""
