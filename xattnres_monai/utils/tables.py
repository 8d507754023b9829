"""Tables as text, by ``tabulate``: cells are printed as they are given, numbers too."""

from functools import partial

from tabulate import tabulate

__all__ = ["columns", "markdown"]

columns = partial(tabulate, tablefmt="plain", disable_numparse=True)
markdown = partial(tabulate, headers="firstrow", tablefmt="github", disable_numparse=True)
