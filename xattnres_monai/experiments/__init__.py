"""Studies of networks and bundles: comparisons, attention maps and benchmarks."""
