"""The zoo: rendering, verification, packing and published weights of bundles."""
