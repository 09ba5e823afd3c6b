"""Rendering: the one Jinja2 environment turns a configuration into a standalone Python module."""

from fa4gen.codegen.environment import names_read, template_sources, templates_dir
from fa4gen.codegen.generate import (
    CONTEXT_NAMES,
    ENTRY_POINT,
    GeneratedKernel,
    render,
    template_hash,
)
from fa4gen.codegen.manifest import Manifest, load_manifest

__all__ = [
    "CONTEXT_NAMES",
    "ENTRY_POINT",
    "GeneratedKernel",
    "Manifest",
    "load_manifest",
    "names_read",
    "render",
    "template_hash",
    "template_sources",
    "templates_dir",
]
