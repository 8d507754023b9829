"""Data: layouts of data sets, folds, checks of files, and transforms."""
