"""Manifests and templates agree: fa4gen's own, and the stand-in of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from fa4gen.codegen import (
    CONTEXT_NAMES,
    load_manifest,
    names_read,
    template_sources,
    templates_dir,
)

STAND_IN = Path(__file__).parent / "data" / "templates"
MANIFESTS = [
    pytest.param(folder, path.parent.name, path.stem, id=f"{label}-{path.parent.name}-{path.stem}")
    for label, folder in (("shipped", templates_dir()), ("stand-in", STAND_IN))
    for path in sorted(folder.glob("*/*.toml"))
]


def test_there_are_shipped_manifests() -> None:
    assert load_manifest("sm90", "fwd", templates_dir()).description


@pytest.mark.parametrize(("folder", "arch", "direction"), MANIFESTS)
def test_template_reads_the_knobs_its_manifest_lists(
    folder: Path, arch: str, direction: str
) -> None:
    knobs = set(load_manifest(arch, direction, folder).knobs)
    read = names_read(template_sources(arch, direction, folder), folder)
    assert read - set(CONTEXT_NAMES) == knobs
