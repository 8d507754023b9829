"""Files of text that are replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path

__all__ = ["replace_text"]


def replace_text(path: Path, text: str) -> None:
    """Write ``path`` so that it is at any moment the old file or the new one; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}")
    written.write_text(text)
    written.replace(path)
