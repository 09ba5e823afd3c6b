"""The tuning store keeps the contract of every store, named by a path and by a URL."""

from __future__ import annotations

from pathlib import Path

from fa4gen.db import Store, TuningStore
from fa4gen.testing.store_contract import StoreContract


class TestSqliteFile(StoreContract):
    def open_store(self, folder: Path) -> Store:
        return TuningStore.open(folder / "tuning.sqlite", with_shipped=False)


class TestSqliteUrl(StoreContract):
    def open_store(self, folder: Path) -> Store:
        return TuningStore.open(f"sqlite:///{folder}/tuning.sqlite")
