"""From a signature and a configuration to a standalone Python module."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import Any

import jinja2

from fa4gen import __version__
from fa4gen.codegen.environment import (
    environment,
    template_name,
    template_sources,
    templates_dir,
)
from fa4gen.codegen.manifest import load_manifest
from fa4gen.core.canonical import identity
from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import RenderError
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility import ctas_per_sm, rows_per_query
from fa4gen.hardware import Arch, load_arch
from fa4gen.numerics.exp2_poly import LINE, coefficients

CONTEXT_NAMES: tuple[str, ...] = (
    "dtype_name",
    "out_dtype_name",
    "head_dim",
    "head_dim_v",
    "head_dim_padded",
    "head_dim_v_padded",
    "causal",
    "qhead_per_kvhead",
    "target",
    "rows_per_query",
    "ctas_per_sm",
    "exp2_coefficients",
    "exp2_line",
    "provenance",
)
"""Names every template may read besides the knobs in its manifest."""

ENTRY_POINT = "build"
"""Function a generated module must define: ``build(options: str = "")``, which compiles it."""


@dataclass(frozen=True, slots=True)
class GeneratedKernel:
    """A rendered kernel: a Python module that needs CuTe-DSL and nothing of fa4gen."""

    source: str
    module_name: str
    """A Python identifier, distinct for each signature, configuration and template."""
    signature: KernelSignature
    config: KernelConfig
    arch: str
    """Name of the arch, e.g. ``sm90``."""
    target: str
    """What it is compiled for, e.g. ``sm_90a``."""
    template_hash: str


def template_hash(arch_name: str, direction: str = "fwd", *, templates: Path | None = None) -> str:
    """Identity of the text of an arch's template and of all that it includes.

    Raises:
        UnknownName: there is no such arch, or no template for it.
        RenderError: a syntax error or a missing include.
    """
    family = load_arch(arch_name).family
    return identity(dict(template_sources(family, direction, templates_dir(templates))))


def render(
    signature: KernelSignature,
    config: KernelConfig,
    arch: Arch,
    *,
    direction: str = "fwd",
    templates: Path | None = None,
) -> GeneratedKernel:
    """Render the template of ``arch``; whether it fits the hardware is feasibility's business.

    ``templates`` stands in for fa4gen's own folder of templates.

    Raises:
        UnknownName: there is no such template, or its manifest names an unknown knob.
        ResourceError: the manifest is missing or malformed.
        RenderError: the template is broken, or what it gave is not a Python module with a
            ``build`` function; the message has the file and the line.
    """
    folder = templates_dir(templates)
    name = template_name(arch.family, direction)
    digest = template_hash(arch.name, direction, templates=folder)
    knobs = load_manifest(arch.family, direction, folder).knobs
    values = _context(signature, config, arch, knobs)
    values["provenance"] = (
        f"fa4gen {__version__}, template {name} {digest}, config {config.config_id}"
    )
    source = _rendered(name, values, folder)
    _check_module(name, source)
    key = {"template": digest, "target": arch.target, "config": config.to_dict()}
    module = identity({**key, "signature": signature.to_dict()})
    return GeneratedKernel(
        source=source,
        module_name=f"fa4gen_{arch.name}_{direction}_{module}",
        signature=signature,
        config=config,
        arch=arch.name,
        target=arch.target,
        template_hash=digest,
    )


def _context(
    signature: KernelSignature, config: KernelConfig, arch: Arch, knobs: tuple[str, ...]
) -> dict[str, Any]:
    """What the template gets, ``provenance`` excepted: see :data:`CONTEXT_NAMES`."""
    all_knobs = config.to_dict()
    line = config.exp2_poly_degree == LINE
    return {
        **{knob: all_knobs[knob] for knob in knobs},
        "dtype_name": signature.dtype.cutlass_name,
        "out_dtype_name": signature.dtype.out.cutlass_name,
        "head_dim": signature.head_dim,
        "head_dim_v": signature.head_dim_v,
        "head_dim_padded": signature.head_dim_padded,
        "head_dim_v_padded": signature.head_dim_v_padded,
        "causal": signature.causal,
        "qhead_per_kvhead": signature.qhead_per_kvhead,
        "target": arch.target,
        "rows_per_query": rows_per_query(signature, config),
        "ctas_per_sm": ctas_per_sm(signature, config, arch),
        "exp2_coefficients": () if line else coefficients(config.exp2_poly_degree),
        "exp2_line": line and config.exp2_poly_fraction > 0,
    }


def _rendered(name: str, values: dict[str, Any], templates: Path) -> str:
    """The text of template ``name``.

    Raises:
        RenderError: an undefined name, or any other failure inside the template.
    """
    try:
        return environment(templates).get_template(name).render(values)
    except jinja2.TemplateSyntaxError as error:
        raise RenderError(f"template {error.name}, line {error.lineno}: {error.message}") from error
    except jinja2.UndefinedError as error:
        where = _template_line(error, templates, name)
        raise RenderError(
            f"{where}: {error.message}; allowed: the knobs in its manifest and "
            f"{', '.join(CONTEXT_NAMES)}"
        ) from error
    except Exception as error:  # a template runs arbitrary expressions
        where = _template_line(error, templates, name)
        raise RenderError(f"{where}: {type(error).__name__}: {error}") from error


def _template_line(error: Exception, templates: Path, name: str) -> str:
    """``template <file>, line <n>`` of the innermost template frame of ``error``."""
    for frame in reversed(extract_tb(error.__traceback__)):
        if Path(frame.filename).is_relative_to(templates):
            path = Path(frame.filename).relative_to(templates)
            return f"template {path.as_posix()}, line {frame.lineno}"
    return f"template {name}"


def _check_module(name: str, source: str) -> None:
    """Refuse text that is not a Python module with :data:`ENTRY_POINT`.

    Raises:
        RenderError: with the line of the rendered text, and the line itself.
    """
    try:
        tree = ast.parse(source, filename=name)
    except (SyntaxError, ValueError) as error:
        number = getattr(error, "lineno", None) or 1
        lines = source.splitlines()
        text = lines[number - 1].strip() if number <= len(lines) else ""
        raise RenderError(
            f"template {name}: rendered text is not Python: {error.args[0]} at its line {number}: "
            f"{text!r}"
        ) from error
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if ENTRY_POINT not in functions:
        raise RenderError(
            f"template {name}: got a module with functions {', '.join(sorted(functions)) or 'none'}"
            f', allowed: one that defines {ENTRY_POINT}(options: str = "")'
        )
