"""Command line: ``python -m xattnres_monai COMMAND``; ``--help`` after any command tells its arguments."""

from __future__ import annotations

import signal
import sys

import fire

from xattnres_monai.benchmark.command import benchmark
from xattnres_monai.benchmark.gpu import gpu
from xattnres_monai.bundles import Bundles
from xattnres_monai.compare.command import compare
from xattnres_monai.datasets.overview import datalist
from xattnres_monai.maps.command import maps
from xattnres_monai.report import report

COMMANDS = {
    "benchmark": benchmark,
    "bundles": Bundles,
    "compare": compare,
    "datalist": datalist,
    "gpu": gpu,
    "maps": maps,
    "report": report,
}


def main() -> None:
    # else what a command has started would go on without it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        fire.Fire(COMMANDS, name="xattnres_monai")
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
