"""The one Jinja2 environment, and the set of files one template is made of."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import jinja2
import jinja2.meta

from fa4gen.core.errors import RenderError, UnknownName
from fa4gen.core.paths import data_dir

SUFFIX = ".py.j2"


def python_literal(value: object) -> str:
    """The ``py`` filter: a plain value as Python source, e.g. ``True`` or ``'lpt'``.

    Raises:
        RenderError: a value that is not a bool, int, float, str or a tuple of those.
    """
    items = value if isinstance(value, tuple) else (value,)
    for item in items:
        if not isinstance(item, bool | int | float | str):
            raise RenderError(
                f"filter py: got {type(item).__name__}, allowed: bool, int, float, str or a tuple "
                "of those; pass a plain value"
            )
    return repr(value)


def templates_dir(templates: Path | None = None) -> Path:
    """``templates``, or the folder of fa4gen's own templates.

    Raises:
        ResourceError: fa4gen's folder is missing.
    """
    return data_dir("templates") if templates is None else templates


@lru_cache(maxsize=8)
def environment(templates: Path) -> jinja2.Environment:
    """The environment whose templates lie under ``templates``; a changed file is read again.

    Tags on a line of their own leave no trace in the output, so a template can indent them like
    the Python around them. A name that was not passed is an error, also inside ``{% if %}``.
    """
    built = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    built.filters["py"] = python_literal
    return built


def template_name(arch_name: str, direction: str) -> str:
    """Path of a template relative to the templates folder, e.g. ``sm90/fwd.py.j2``."""
    return f"{arch_name}/{direction}{SUFFIX}"


def template_sources(arch_name: str, direction: str, templates: Path) -> dict[str, str]:
    """Text of a template and of all that it includes, imports or extends, by relative path.

    Raises:
        UnknownName: there is no template for this arch and direction.
        RenderError: a syntax error, a missing include, or one whose name is not a constant.
    """
    top = template_name(arch_name, direction)
    if not (templates / top).is_file():
        known = (path.relative_to(templates) for path in templates.glob(f"*/*{SUFFIX}"))
        raise UnknownName("template", top, map(str, known))
    found: dict[str, str] = {}
    waiting = [top]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = (templates / name).read_text(encoding="utf-8")
            waiting += _references(name, found[name], templates)
    return dict(sorted(found.items()))


def names_read(sources: dict[str, str], templates: Path) -> frozenset[str]:
    """Top-level names that these templates take from what ``render`` passes."""
    env = environment(templates)
    parsed = (env.parse(text, name) for name, text in sources.items())
    return frozenset().union(*map(jinja2.meta.find_undeclared_variables, parsed))


def _references(name: str, text: str, templates: Path) -> list[str]:
    """Templates that ``text`` names; see :func:`template_sources` for the errors."""
    references = []
    for reference in _names(name, text, templates):
        if reference is None:
            raise RenderError(
                f"template {name}: got an include whose name is computed, allowed: a constant "
                "name, so that the template's hash covers it"
            )
        if not (templates / reference).is_file():
            raise RenderError(
                f"template {name}: got include {reference!r}, which is not a file under "
                f"{templates}; names are relative to that folder"
            )
        references.append(reference)
    return references


@lru_cache(maxsize=64)
def _names(name: str, text: str, templates: Path) -> tuple[str | None, ...]:
    """What ``text`` includes; ``None`` for a name that is computed.

    Kept, for parsing takes 10 ms and every render and every measurement asks.
    """
    try:
        parsed = environment(templates).parse(text, name)
    except jinja2.TemplateSyntaxError as error:
        raise RenderError(f"template {name}, line {error.lineno}: {error.message}") from error
    return tuple(jinja2.meta.find_referenced_templates(parsed))
