"""One module for each data set. It reads the published folder layout as a list of cases."""
