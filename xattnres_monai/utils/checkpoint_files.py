"""Files of checkpoints: read without running code, and written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

__all__ = ["read_checkpoint", "save_whole"]


def read_checkpoint(path: str | Path) -> Any:
    """Read what ``torch.save`` wrote, onto the CPU, with ``weights_only=True``: no code that the file names is run.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it holds anything but tensors in plain containers, or is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, expected a checkpoint; check the path") from None
    except Exception as error:  # whatever the bytes of a damaged or hostile file lead the unpickler to
        # without the cause: torch's text is long and advises weights_only=False, which would run what the file says
        raise ValueError(
            f"{path}: not readable as tensors alone ({type(error).__name__}), expected a checkpoint; write it again "
            "with torch.save(network.state_dict(), path)"
        ) from None


def save_whole(state: dict[str, Any], path: Path, previous: Path | None = None) -> None:
    """Save a checkpoint so that the file is at any moment the old one or the new one, also when power fails.

    Args:
        state: what ``torch.save`` takes.
        path: file to write or replace.
        previous: name that a file of that path gets instead of being replaced.

    Raises:
        OSError: when it cannot be written, say on a full disk; ``path`` stays as it was.
    """
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch wraps some of the file's errors
        part.unlink(missing_ok=True)
        raise OSError(
            f"{path} cannot be written ({str(error).splitlines()[0]}), the one before it is whole; make room, run again"
        ) from error
    if previous is not None and path.exists():
        path.replace(previous)
    part.replace(path)
