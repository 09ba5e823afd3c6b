"""An untested CuTe-DSL is said once, and compiles all the same."""

from __future__ import annotations

import warnings

import pytest

from fa4gen.compile import driver


def test_an_untested_version_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "cutlass_dsl_note", lambda: "nvidia-cutlass-dsl: got 9.9")
    driver._note_untested_version.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"got 9\.9"):
        driver._note_untested_version()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        driver._note_untested_version()
    driver._note_untested_version.cache_clear()
