"""Small helpers that know nothing of networks or bundles."""
