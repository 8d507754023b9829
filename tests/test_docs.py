"""The snippets of the documentation are run as they stand there."""

from __future__ import annotations

import difflib
import re
import runpy
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def snippets(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


def test_a_network_of_ones_own_gets_xattnres_in_fewer_than_15_lines(capsys):
    plain, extended = snippets("your_own_network.md")
    for snippet in (plain, extended):
        exec(compile(snippet, "your_own_network.md", "exec"), {"__name__": "snippet"})
    first, second, maps = capsys.readouterr().out.splitlines()
    assert first == second == "torch.Size([1, 3, 64, 96])"
    assert maps == "{'encoder2': (1, 2, 16, 24), 'decoder3': (1, 3, 8, 12), 'decoder4': (1, 4, 16, 24)}"
    added = [line for line in difflib.ndiff(plain.splitlines(), extended.splitlines()) if line.startswith("+ ")]
    assert len(added) < 15


def test_the_figure_of_the_mechanism_is_drawn_from_a_real_network(tmp_path):
    picture = tmp_path / "mechanism.png"
    runpy.run_path(str(DOCS / "figures" / "mechanism.py"))["figure"]().savefig(picture)
    assert picture.stat().st_size > 10_000


def test_trained_monai_weights_load_as_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (snippet,) = snippets("networks.md")
    names: dict = {}
    exec(compile(snippet, "networks.md", "exec"), names)
    assert names["report"].matched and not names["report"].missing
