"""Published folder layouts of data sets, read into lists of cases with folds. One module a data set."""
