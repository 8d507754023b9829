"""The command line: ``python -m xattnres_monai COMMAND``. Every command explains its arguments with ``--help``."""

from __future__ import annotations

import signal
import sys

import fire

from xattnres_monai.bundles.command import Bundles
from xattnres_monai.data.datalist import datalist
from xattnres_monai.evaluation.report import report
from xattnres_monai.experiments.benchmark.command import benchmark
from xattnres_monai.experiments.benchmark.gpu import gpu
from xattnres_monai.experiments.compare.command import compare
from xattnres_monai.experiments.maps.command import maps

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
    # otherwise the processes that a command started would keep running after it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        fire.Fire(COMMANDS, name="xattnres_monai")
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
