"""Compare the code that a bundle's configs would run with the allow list.

A config is code: MONAI evaluates every string that starts with ``$``, calls whatever a ``_target_`` names, and lets a
``%`` macro include another file. :func:`outside` names all such code that is not on the allow list, so that you know
what to read before you run a bundle from others.

It is not a sandbox. It stops nobody from running a bundle, listed code can still get unwanted arguments (such as a
folder to write to), and the list may have gaps.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.utils import EXPR_KEY, MACRO_KEY

from xattnres_monai.bundles.allow_list import ATTRIBUTES, EXPRESSIONS, IMPORTS, NAMES, READERS, TARGETS
from xattnres_monai.bundles.packing import MADE

__all__ = ["outside"]

# Arguments that make a component call what they name, run a compiler or read pickles, and keys that make MONAI open a
# debugger
NAMING_CODE = ("reader", "writer", "allow_pickle", "compile_kwargs", "_debug_", "_mode_")
GLOBALS = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}  # MONAI provides these to expressions
REFERENCES = "__local_refs"  # MONAI replaces @id by __local_refs['id'] before it evaluates
OWN = {name.rpartition(".")[0] for name in NAMES if name.startswith("xattnres_monai.")}
SYNTAX = (
    *(ast.Constant, ast.JoinedStr, ast.FormattedValue, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Starred),
    *(ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Subscript, ast.Slice),
    *(ast.operator, ast.boolop, ast.unaryop, ast.cmpop, ast.expr_context),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension),
    *(ast.Lambda, ast.arguments, ast.arg, ast.Attribute, ast.Call, ast.keyword),
)


def outside(bundle: str | Path, trust: Sequence[str] = ()) -> list[str]:
    """Find all code that a bundle would run and that is not on the allow list, without running any of it.

    The function reads all config files (JSON and YAML) in ``configs``. It also reports Python modules and links in the
    bundle's folder, because an import might find them instead of the intended module. It does not read
    ``logging.conf``, which can name code too: MONAI checks that file itself before it applies it.

    Args:
        bundle: the bundle's folder.
        trust: names of packages, modules, functions or targets to allow, with everything inside them.

    Returns:
        One line per finding: the file, the id in it, and its value.

    Raises:
        ValueError: when a JSON config file cannot be parsed.
        yaml.YAMLError: when a YAML config file cannot be parsed.
    """
    root = Path(bundle)
    entries = [
        (path.relative_to(root), key, value)
        for path in sorted((root / "configs").rglob("*"))
        if path.suffix.lower().lstrip(".") in ConfigParser.suffixes
        for key, value in _entries("", ConfigParser.load_config_file(path))
    ]
    known = _Known(trust)
    for _, key, value in entries:
        known.learn(key, value)
    suffixes = tuple(all_suffixes())
    files = {path.relative_to(root): path for path in sorted(root.rglob("*"))}
    kept = {path: file for path, file in files.items() if path.parts[0] not in MADE and not known.trusts(_module(path))}
    return [
        *(f"{path}, {key}: {value}" for path, key, value in entries if not known.allows(key, value)),
        *(f"{path}: a link" for path, file in kept.items() if file.is_symlink()),
        *(f"{path}: Python" for path, file in kept.items() if path.name.endswith(suffixes) and not file.is_symlink()),
    ]


def _entries(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the id and value of every entry of a config that may name code."""
    if isinstance(value, str) or _last(key) in ("_target_", *NAMING_CODE):
        yield key, value
    if isinstance(value, Mapping | list):
        for child, entry in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _entries(f"{key}#{child}" if key else str(child), entry)


class _Known:
    """The allow list, together with the names that the user trusts and the aliases that a bundle's imports define."""

    def __init__(self, trust: Sequence[str]) -> None:
        self.trust = trust
        self.modules = dict(GLOBALS)
        self.expressions = [_evaluated("", EXPR_KEY + text) for text in EXPRESSIONS]

    def learn(self, key: str, value: Any) -> None:
        """Record the aliases of an import. The first meaning of an alias counts; a second one is not allowed."""
        if _runs(value):
            for alias, name in _imported(_statement(key, value)):
                self.modules.setdefault(alias, name)

    def allows(self, key: str, value: Any) -> bool:
        """Return whether an entry of a config is on the allow list, or would not be run by MONAI at all."""
        if _last(key) == "_target_":
            return isinstance(value, str) and (value in TARGETS or self.trusts(value))
        if _last(key) in NAMING_CODE:
            return value in READERS
        if not _runs(value):
            return not value.startswith(MACRO_KEY)
        statement = _statement(key, value)
        if imported := _imported(statement):
            return all(self.modules[alias] == name and self._imports(name) for alias, name in imported)
        if not isinstance(statement, ast.Expr):
            return False
        bound = _bound(statement)
        hidden = any(self._hidden(name) for name in bound)
        return not hidden and not _assigns(statement) and self._has(statement.value, bound)

    def trusts(self, name: str) -> bool:
        return any(f"{name}.".startswith(f"{trusted}.") for trusted in self.trust)

    def _hidden(self, name: str) -> bool:
        """Return whether a variable has the name of a module or builtin, which the name means outside its scope."""
        return name in self.modules or hasattr(builtins, name) or name.startswith("__")

    def _imports(self, name: str) -> bool:
        return name in (*IMPORTS, *OWN) or self._names(name)

    def _names(self, name: str) -> bool:
        return name in NAMES or self.trusts(name)

    def _has(self, node: ast.AST, bound: set[str]) -> bool:
        """Return whether a part of an expression is allowed, with all its own parts; ``bound`` holds the variables."""
        if _is_reference(node) or (isinstance(node, ast.expr) and ast.unparse(node) in self.expressions):
            return True
        if path := _path(node, bound):
            return self._names(".".join([self.modules.get(path[0], path[0]), *path[1:]]))
        if isinstance(node, ast.Name):
            return node.id in bound
        if isinstance(node, ast.Attribute) and node.attr not in ATTRIBUTES:
            return False
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Attribute) and not _path(node.func, bound):
            return False  # calls a variable, an element or the result of a call: it could be anything
        return isinstance(node, SYNTAX) and all(self._has(child, bound) for child in ast.iter_child_nodes(node))


def _last(key: str) -> str:
    return ReferenceResolver.split_id(key)[-1]


def _runs(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(EXPR_KEY)


def _evaluated(key: str, value: str) -> str:
    """Return the text that MONAI would evaluate.

    MONAI's own functions insert the references, because the quotes that they insert may end a string.
    """
    text = ConfigParser.resolve_relative_ids(ReferenceResolver.normalize_id(key), value)
    return ReferenceResolver.update_refs_pattern(text, ReferenceResolver.match_refs_pattern(text))[len(EXPR_KEY) :]


def _statement(key: str, value: str) -> ast.stmt | None:
    """Return the statement that MONAI would evaluate, or ``None`` if the text is not exactly one statement."""
    try:
        (statement,) = ast.parse(_evaluated(key, value)).body
    except (SyntaxError, ValueError):
        return None
    return statement


def _imported(statement: ast.stmt | None) -> list[tuple[str, str]]:
    """Return the aliases that an import defines, with their full names; empty for any other statement."""
    if isinstance(statement, ast.Import):
        return [(alias.asname or alias.name, alias.name) for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        module = "." * statement.level + (statement.module or "")
        return [(alias.asname or alias.name, f"{module}.{alias.name}") for alias in statement.names]
    return []


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names of the parameters and variables of an expression."""
    nodes = list(ast.walk(statement))
    variables = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return variables | {node.arg for node in nodes if isinstance(node, ast.arg)}


def _assigns(statement: ast.stmt) -> bool:
    """Return whether a comprehension assigns to an attribute or element instead of a plain variable."""
    nodes = [node for node in ast.walk(statement) if isinstance(node, ast.Attribute | ast.Subscript)]
    return not all(isinstance(node.ctx, ast.Load) for node in nodes)


def _path(node: ast.AST, bound: set[str]) -> list[str]:
    """Return the parts of a dotted name from outside the expression, such as ``os.path.join``; empty otherwise."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return [node.id, *parts] if isinstance(node, ast.Name) and node.id not in bound else []


def _is_reference(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id == REFERENCES
        and isinstance(node.slice, ast.Constant)
    )


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts)
