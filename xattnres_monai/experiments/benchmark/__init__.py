"""Measure the cost of XAttnRes against plain MONAI and against the paper's literal equation."""
