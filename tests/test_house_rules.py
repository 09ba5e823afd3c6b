"""Rules of the house that a reader of one diff overlooks: sizes, words, numbers."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "fa4gen").rglob("*.py"))
TEMPLATES = sorted((ROOT / "templates").rglob("*.j2"))
SPACES = sorted((ROOT / "search_spaces").rglob("*.toml"))

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 7
MAX_OPTIONS = 9
"""Of a command, whose parameters are the options that its users see."""

HARDWARE_NUMBERS = {"132", "148", "1590", "1830", "1980", "232448", "233472"}
"""SM counts, clocks in MHz and shared memory sizes of the GPUs that fa4gen knows."""
SMEM_PRODUCT = re.compile(r"\b22[78]\s*\*\s*1024\b")

GLOSSARY = ROOT / "docs" / "glossary.md"


def banned_words() -> dict[str, str]:
    """Wrong spelling (a file-name pattern) -> the right one, from the tables of the glossary."""
    found = {}
    for line in GLOSSARY.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 4:
            right = ", ".join(re.findall(r"`(\w+)`", cells[0]))
            found |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[3]), right)
    return found


BANNED = banned_words()


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines())


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, the docstring not counted."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def identifiers(path: Path) -> Iterator[tuple[int, str]]:
    """Names that *we* choose; a keyword handed to another library's function is its word."""
    for node in ast.walk(ast.parse(path.read_text())):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Name):
            yield line, node.id
        elif isinstance(node, ast.arg):
            yield line, node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield line, node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield line, node.attr


def banned_word(word: str) -> str | None:
    """The right word for a banned one."""
    return next((right for wrong, right in BANNED.items() if fnmatchcase(word, wrong)), None)


def test_modules_are_short() -> None:
    long = {relative(p): n for p in MODULES if (n := line_count(p)) >= MAX_MODULE_LINES}
    assert long == {}, f"a module has at most {MAX_MODULE_LINES - 1} lines; split by noun"


def test_functions_are_short() -> None:
    long = {
        f"{relative(path)}:{function.lineno} {function.name}": lines
        for path in MODULES
        for function in functions(path)
        if (lines := code_lines(function)) >= MAX_FUNCTION_LINES
    }
    assert long == {}, f"a function has fewer than {MAX_FUNCTION_LINES} lines of code"


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether all its parameters are options or arguments of the command line."""
    kinds = [ast.unparse(a.annotation) for a in function.args.args if a.annotation]
    return bool(kinds) and all(re.match(r"Annotated\[|\w+(Option|Argument)$", k) for k in kinds)


def test_functions_take_few_parameters() -> None:
    wide = {}
    for path in MODULES:
        for function in functions(path):
            given = function.args
            names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            names = [name for name in names if name not in {"self", "cls"}]
            if len(names) > (MAX_OPTIONS if is_command(function) else MAX_PARAMETERS):
                wide[f"{relative(path)}:{function.lineno} {function.name}"] = len(names)
    assert wide == {}, f"more than {MAX_PARAMETERS} parameters; group them in a frozen dataclass"


def test_hardware_numbers_live_in_toml() -> None:
    found = []
    for path in MODULES:
        text = path.read_text()
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NUMBER and token.string.replace("_", "") in HARDWARE_NUMBERS:
                found.append(f"{relative(path)}:{token.start[0]}: {token.string}")
    for path in (*MODULES, *TEMPLATES):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if SMEM_PRODUCT.search(line):
                found.append(f"{relative(path)}:{number}: {line.strip()}")
    for path in TEMPLATES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for literal in re.findall(r"(?<![\w.])\d+(?![\w.])", line):
                if literal in HARDWARE_NUMBERS:
                    found.append(f"{relative(path)}:{number}: {literal}")
    assert found == [], "read it from fa4gen.hardware"


def test_words_are_those_of_the_glossary() -> None:
    found = [
        f"{relative(path)}:{line}: {word!r} -> {right}"
        for path in MODULES
        for line, word in identifiers(path)
        if (right := banned_word(word))
    ]
    for path in (*TEMPLATES, *SPACES):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for word in re.findall(r"\b[A-Za-z_]\w*\b", line):
                if right := banned_word(word):
                    found.append(f"{relative(path)}:{number}: {word!r} -> {right}")
    assert found == []


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b|#\s*(noqa|type: ignore)\s*$")
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in (*MODULES, *TEMPLATES)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("word", "right"),
    [
        ("headdim", "head_dim, head_dim_v"),
        ("hdim_v", "head_dim, head_dim_v"),
        ("is_causal", "causal"),
        ("head_dim", None),
    ],
)
def test_the_vocabulary_check_knows_right_from_wrong(word: str, right: str | None) -> None:
    assert banned_word(word) == right


def test_the_docstring_is_not_counted() -> None:
    text = 'def f():\n    """One.\n\n    Two.\n    """\n    return 1\n'
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    assert code_lines(function) == 2
