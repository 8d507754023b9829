"""The snippets of README.md are run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_snippets_run_and_give_the_shapes_they_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(snippets) == 1
    names: dict = {}
    for snippet in snippets:
        exec(compile(snippet, str(README), "exec"), names)
    assert names["logits"].shape == (1, 3, 64, 48, 64)
    assert names["weights"].shape == (1, 6, 32, 24, 32)


def test_every_file_that_the_readme_links_to_exists():
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", README.read_text())
    assert len(links) >= 4
    for link in links:
        assert (README.parent / link).exists(), link
