from __future__ import annotations

import os
from pathlib import Path

# one thread per test process: two workers with two threads each on two cores wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from tests.data.layouts import write_msd

# the fast suite tries the same examples every time; `make test-slow` looks for new ones with --hypothesis-profile
settings.register_profile("fast", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=500, deadline=None, print_blob=True)
settings.load_profile("fast")

# TorchScript knows operators by the ids of their Python objects. Those that an ONNX export makes are gone after it, and
# what gets such an id next, the padding of a convolution say, "cannot be used as a value" (torch 2.13): keep them.
_register_builtin = torch.jit._builtins._register_builtin
_kept = []


def _register_and_keep(operator: object, name: str) -> None:
    _kept.append(operator)
    _register_builtin(operator, name)


torch.jit._builtins._register_builtin = _register_and_keep


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws does not depend on those before it, so that a failure can be repeated."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def decathlon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task folder in the decathlon's layout: ten labelled cases and one without label."""
    return write_msd(tmp_path_factory.mktemp("with space") / "Task99_Ellipsoids")


def data_folder() -> Path:
    """Folder of real data sets, which may be absent: ``XATTNRES_DATA_DIR``, or beside the clone."""
    return Path(os.environ.get("XATTNRES_DATA_DIR", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data sets; tests are skipped without it."""
    folder = data_folder()
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: set XATTNRES_DATA_DIR")
    return folder
