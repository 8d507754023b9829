"""Inference on many images, and the files that it writes."""
