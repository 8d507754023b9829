"""Text files that are replaced as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

__all__ = ["replace_text"]


def replace_text(path: Path, text: str) -> None:
    """Write ``path`` so that it is the old or the new file at any moment. Missing folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}")
    written.write_text(text)
    written.replace(path)
