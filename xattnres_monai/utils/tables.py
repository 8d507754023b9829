"""Text tables by ``tabulate``, which prints all cells unchanged, numbers included."""

from functools import partial

from tabulate import tabulate

__all__ = ["columns", "markdown"]

columns = partial(tabulate, tablefmt="plain", disable_numparse=True)
markdown = partial(tabulate, headers="firstrow", tablefmt="github", disable_numparse=True)
