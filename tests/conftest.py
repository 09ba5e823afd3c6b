"""What all tests share: files of their own, and GPU tests skipped where there is no GPU."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers side by side with threads of torch and numpy each: several times as slow.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-gpu", action="store_true", help="fail, not skip, the GPU tests without a GPU"
    )
    parser.addoption("--accept", action="store_true", help="rewrite the golden files")


def has_gpu() -> bool:
    """Whether a driver has put an NVIDIA device here; found without importing torch."""
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "0") != ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if has_gpu() or config.getoption("--require-gpu"):
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU; there is none here"))


def pytest_collection_finish() -> None:
    """Compiling and emulating make millions of objects; looking for cycles took up to 9 % of it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this session, the same in all its processes."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's database; compiled objects are shared by one session."""
    monkeypatch.setenv("FA4GEN_DB", str(tmp_path / "fa4gen-user.sqlite"))
    monkeypatch.setenv("FA4GEN_CACHE_DIR", str(shared_folder / "fa4gen-cache"))
