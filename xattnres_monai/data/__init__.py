"""Reading data: layouts of data sets, folds, checks of files, transforms."""
