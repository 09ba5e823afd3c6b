"""The note about CuTe-DSL's version."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fa4gen import versions


def test_a_tested_version_needs_no_note() -> None:
    assert versions.cutlass_dsl_note(versions.TESTED_CUTLASS_DSL[-1]) is None


def test_an_untested_version_names_both_and_the_remedy() -> None:
    note = versions.cutlass_dsl_note("4.9.0")
    assert note is not None
    assert "got 4.9.0, tested with 4.8.1" in note
    assert "pip install 'nvidia-cutlass-dsl==4.8.1'" in note


def test_a_missing_dsl_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed", lambda distribution: None)
    assert "not installed" in str(versions.cutlass_dsl_note())


def test_installed_does_not_raise_for_what_is_not_there() -> None:
    assert versions.installed("no-such-distribution") is None


def test_the_constraints_hold_a_tested_dsl_and_the_torch_of_the_project() -> None:
    root = Path(__file__).resolve().parent.parent
    pins = dict(
        line.split("==")
        for line in (root / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert pins[versions.CUTLASS_DSL] in versions.TESTED_CUTLASS_DSL
    assert pins["torch"] == "2.13.0"
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert "torch>=2.11" in project["dependencies"]
