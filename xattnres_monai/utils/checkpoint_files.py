"""Checkpoint files: they are read without running code, and written as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

__all__ = ["read_checkpoint", "save_whole"]


def read_checkpoint(path: str | Path) -> Any:
    """Read a checkpoint onto the CPU with ``weights_only=True``, so that no code in the file runs.

    Args:
        path: path of a file that ``torch.save`` wrote.

    Returns:
        The content of the file.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file holds anything but tensors in plain containers, or when it is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, expected a checkpoint; check the path") from None
    except Exception as error:  # a damaged or hostile file can make the unpickler raise any error
        # hide the cause: torch's text is long and advises weights_only=False, which would run code from the file
        raise ValueError(
            f"{path}: not readable as tensors alone ({type(error).__name__}), expected a checkpoint; write it again "
            "with torch.save(network.state_dict(), path)"
        ) from None


def save_whole(state: dict[str, Any], path: Path, previous: Path | None = None) -> None:
    """Save a checkpoint so that the file is the old or the new one at any moment, even if the power fails.

    Args:
        state: the checkpoint, as ``torch.save`` takes it.
        path: file to write or replace.
        previous: new path for the old file. If it is ``None``, the old file is replaced.

    Raises:
        OSError: when the file cannot be written, e.g. on a full disk. ``path`` stays as it was.
    """
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch turns some errors of the file into RuntimeError
        part.unlink(missing_ok=True)
        raise OSError(
            f"{path} cannot be written ({str(error).splitlines()[0]}), the old file is intact; make room and run again"
        ) from error
    if previous is not None and path.exists():
        path.replace(previous)
    part.replace(path)
