"""One module a data set: its published folder layout as a list of cases."""
