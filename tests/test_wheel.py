"""The built wheel, installed elsewhere, has its data and tunes with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = ("templates", "search_spaces", "tuning_db", "workloads")
SUFFIXES = {".toml", ".j2", ".jsonl"}
PACKAGE_SUFFIXES = {".toml", ".j2", ".css", ".js"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel in it; the other packages are the test's own."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True)
    return folder


def run(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the installed package, from a folder that is not the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *words],
        cwd=installed.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )


def test_every_data_file_is_in_the_wheel(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"fa4gen/_data/{path.relative_to(ROOT)}"
        for folder in DATA
        for path in (ROOT / folder).rglob("*")
        if path.suffix in SUFFIXES
    }
    expected |= {
        str(path.relative_to(ROOT))
        for path in (ROOT / "fa4gen").rglob("*")
        if path.suffix in PACKAGE_SUFFIXES
    }
    assert "fa4gen/report/page/assets/report.html.j2" in expected
    assert expected <= inside
    assert not [name for name in inside if name.startswith("tests/") or "__pycache__" in name]
    assert "fa4gen/py.typed" in inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_the_package_is_the_installed_one_with_its_own_data(installed: Path) -> None:
    code = "from fa4gen.core.paths import data_dir; print(data_dir('templates'))"
    assert run(installed, "-c", code).stdout.strip() == str(
        installed / "fa4gen" / "_data" / "templates"
    )


def test_it_tunes_where_it_is_installed(installed: Path, tmp_path: Path) -> None:
    workload = tmp_path / "tiny.toml"
    workload.write_text("[[problems]]\nbatch = 1\nseqlen_q = 256\nnum_heads_q = 4\nhead_dim = 64\n")
    words = (
        "-m",
        "fa4gen",
        "tune",
        "--sku",
        "h200",
        "--effort",
        "glance",
        "--workload",
        str(workload),
        "--json",
    )
    (row,) = json.loads(run(installed, *words).stdout)["rows"]
    assert row["winner"]["timing"]["source"] == "modelled"
    shown = json.loads(run(installed, "-m", "fa4gen", "show", "--json").stdout)
    assert row["winner"]["config"] in [shown_row["config"] for shown_row in shown["rows"]]
    page = tmp_path / "report.html"
    run(installed, "-m", "fa4gen", "report", "--out", str(page))
    assert "b1 s256 h4 d64 bf16 dense" in page.read_text()
