"""Keeps the tests of the database away from the user's own files and from the shipped rows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.register_assert_rewrite("fa4gen.testing.store_contract")


@pytest.fixture(autouse=True)
def _no_files_of_the_user(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / "tuning_db").mkdir()
    monkeypatch.setenv("FA4GEN_HOME", str(home))
    monkeypatch.setenv("FA4GEN_CACHE_DIR", str(home / "cache"))
    monkeypatch.setenv("FA4GEN_DB", str(home / "data" / "tuning.sqlite"))


@pytest.fixture
def shipped_folder() -> Path:
    """The ``tuning_db`` folder that fa4gen sees; empty."""
    return Path(os.environ["FA4GEN_HOME"]) / "tuning_db"
