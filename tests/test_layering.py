"""The layers of the design, checked on the imports of every module (by ``ast``; nothing is run)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "fa4gen"

LAYERS = (
    {"core"},
    {"versions"},
    {"hardware", "numerics"},
    {"feasibility", "ptx"},
    {"codegen", "space"},
    {"emulator", "db", "compile"},
    {"perf"},
    {"evaluate"},
    {"tune", "runtime"},
    {"study"},
    {"report"},
    {"cli", "testing"},
)
"""From the bottom up; packages of one set may not import each other."""

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

EXTERNAL = {
    "torch": {"compile", "evaluate", "runtime"},
    "cutlass": {"compile", "evaluate", "runtime"},
    "cuda": {"compile", "evaluate", "runtime"},
    "tvm_ffi": {"compile", "evaluate", "runtime"},
    "optuna": {"tune", "study"},
    "matplotlib": {"study"},
    "plotly": {"report", "study"},
    "sqlalchemy": {"db"},
    "alembic": {"db"},
    "jinja2": {"codegen", "report"},
    "typer": {"cli"},
    "click": {"cli"},
    "rich": {"cli", "report"},
}
"""Packages that only these parts of fa4gen may import."""

LAZY = {"torch", "cutlass"}
"""Imported inside functions only: seconds of start-up that most commands do not need."""

LAZY_EXEMPT = {"evaluate/gpu_worker.py"}
"""Processes of their own, which always need them."""


def imports(tree: ast.AST, module: str) -> Iterator[tuple[ast.stmt, str]]:
    """Every import of a module as (statement, absolute dotted name), relative ones resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                yield node, f"{base}.{alias.name}"


def top_level(tree: ast.Module) -> set[ast.stmt]:
    """Statements that run when the module is imported, ``if TYPE_CHECKING`` blocks left out."""
    found: set[ast.stmt] = set()
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        found.add(node)
        todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return found


def violations(package: Path) -> list[str]:
    """Every import below ``package`` that the layers forbid, as readable lines."""
    found = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        mine = relative.parts[0].removesuffix(".py")
        if mine in {"__init__", "__main__"}:
            continue
        if mine not in RANK:
            found.append(f"{relative}: {mine!r} is in no layer; add it to tests/test_layering.py")
            continue
        tree = ast.parse(path.read_text(), str(path))
        eager = top_level(tree)
        module = ".".join([package.name, *relative.with_suffix("").parts])
        for node, name in imports(tree, module):
            where = f"{relative}:{node.lineno}"
            root, _, rest = name.partition(".")
            if root == package.name:
                found += _inner(where, mine, rest)
            elif mine not in EXTERNAL.get(root, {mine}):
                found.append(f"{where}: {root} may be imported by {sorted(EXTERNAL[root])} only")
            elif root in LAZY and node in eager and str(relative) not in LAZY_EXEMPT:
                found.append(f"{where}: import {root} inside the function that needs it")
    return found


def _inner(where: str, mine: str, rest: str) -> list[str]:
    theirs = rest.partition(".")[0]
    if theirs in {"__version__", mine}:
        return []
    if theirs not in RANK:
        return [f"{where}: fa4gen.{theirs} is not a layer; import from where it is defined"]
    if RANK[theirs] >= RANK[mine]:
        return [f"{where}: {mine} may not import {theirs}, which is not below it"]
    return []


def test_imports_point_down_only() -> None:
    assert violations(PACKAGE) == []


def test_core_imports_the_standard_library_only() -> None:
    outside = {
        f"{path.name}: {name}"
        for path in (PACKAGE / "core").glob("*.py")
        for _, name in imports(ast.parse(path.read_text()), f"fa4gen.core.{path.stem}")
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "fa4gen"}
    }
    assert outside == set()


def test_the_checker_sees_what_it_must(tmp_path: Path) -> None:
    package = tmp_path / "fa4gen"
    for name, text in {
        "core/a.py": "from fa4gen.db import store\n",
        "db/b.py": "def f():\n    import optuna\n",
        "emulator/c.py": "from ..compile import pool\n",
        "runtime/d.py": "if True:\n    import torch\n",
        "runtime/e.py": "def f():\n    import torch\n    from fa4gen.core import errors\n",
        "newcomer/f.py": "",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    found = violations(package)
    assert [line.partition(":")[0] for line in found] == [
        "core/a.py",
        "db/b.py",
        "emulator/c.py",
        "newcomer/f.py",
        "runtime/d.py",
    ]
