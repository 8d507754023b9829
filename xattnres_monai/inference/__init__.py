"""Inference of many images, and the files that it writes."""
