"""Variants and seeds of a bundle, trained and evaluated alike: the command ``compare``."""
