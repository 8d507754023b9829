"""Small helpers that do not depend on networks or bundles."""
