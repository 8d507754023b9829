"""The zoo of bundles: rendering, verifying, packing, and published weights."""
