"""Several processes on one file, and processes that die while they write."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from fa4gen.db import TuningStore

WRITER = Path(__file__).resolve().parent / "writer_process.py"
WRITERS, RECORDS = 3, 30
KILLS = 5


def start(path: Path, tag: str, count: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, str(WRITER), str(path), tag, str(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def promised(output: str) -> dict[int, str]:
    """Record id -> tag of every complete line."""
    lines = output.split("\n")[:-1]
    return {int(number): tag for number, tag in (line.split() for line in lines)}


def stored(store: TuningStore) -> dict[int, str]:
    return {row.record_id: row.evaluation.message for row in store.evaluations()}


def test_tuners_on_one_new_file_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "tuning.sqlite"
    writers = [start(path, f"w{i}", RECORDS) for i in range(WRITERS)]
    said: dict[int, str] = {}
    for writer in writers:
        output, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
        said |= promised(output)
    assert len(said) == WRITERS * RECORDS
    with TuningStore.open(path) as store:
        assert stored(store) == said
        assert len(store.dispatch_rows()) == len({row.problem for row in store.evaluations()})
        assert store.check() == []


def test_a_writer_killed_at_any_moment_breaks_no_promise(tmp_path: Path) -> None:
    path = tmp_path / "tuning.sqlite"
    chance = random.Random(0)
    said: dict[int, str] = {}
    for i in range(KILLS):
        writer = start(path, f"k{i}")
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.15))
        writer.kill()
        rest, errors = writer.communicate(timeout=60)
        assert first, errors
        said |= promised(first + rest)
        with TuningStore.open(path) as store:
            kept = stored(store)
            assert said.items() <= kept.items()
            assert len(kept) <= len(said) + i + 1  # at most the one in flight at each kill
            assert store.check() == []
            ids = set(kept)
            assert all(row.record_id in ids for row in store.dispatch_rows())
