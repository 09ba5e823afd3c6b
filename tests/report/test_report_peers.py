"""Files of peers: what is read of them, and what is not believed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from sample_database import MODELLED, POLICY, add_problem, default, other, problem, ran

from fa4gen.core.errors import ReportError
from fa4gen.core.problem import AttentionProblem
from fa4gen.db import TuningStore
from fa4gen.report.page.gather import gather
from fa4gen.report.page.peers import COLUMNS, read_peers

RECORDED = (
    Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "h200-2026-11-22-peers-8.csv"
)
GPU, DATE = "NVIDIA H200", "2026-03-04T05:06:07+00:00"


def line(asked: AttentionProblem, kernel: str, ratio: float, **changes: Any) -> dict[str, Any]:
    """A row in which this kernel is ``ratio`` times as fast as fa4gen's."""
    given = {
        **asked.to_dict(), "kernel": kernel, "time_us": 100.0 / ratio, "tflops": 500.0 * ratio,
        "ratio_to_fa4gen": ratio, "ratio_low": ratio * 0.99, "ratio_high": ratio * 1.02,
        "error": "", "config": "", "gpu": GPU, "date": DATE,
    }  # fmt: skip
    return {**given, **changes}


def cell(asked: AttentionProblem, **changes: Any) -> list[dict[str, Any]]:
    """fa4gen, a peer that is faster and one that is slower."""
    return [
        line(asked, "fa4gen", 1.0, **changes),
        line(asked, "slow", 0.5),
        line(asked, "fast", 1.25),
    ]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_ratio_turns_into_our_speed_with_its_interval_turned_too(tmp_path: Path) -> None:
    table = read_peers([written(tmp_path / "peers.csv", cell(problem()))])
    view = table.cells[problem(), GPU].view("any")
    assert [peer.kernel for peer in view.peers] == ["fast", "slow"]
    best = view.best
    assert best.speedup == pytest.approx(0.8)
    assert best.speedup_low == pytest.approx(1 / (1.25 * 1.02))
    assert best.speedup_high == pytest.approx(1 / (1.25 * 0.99))
    assert view.same_config is None, "the file does not say which kernel ran"


def test_a_winner_is_shown_beside_the_peers_of_its_own_gpu(tmp_path: Path) -> None:
    asked, elsewhere, modelled = problem(), problem(batch=3), problem(batch=4)
    with TuningStore.open(":memory:", with_shipped=False) as store:
        add_problem(store, asked, 1.2, {"tile_n": 64})
        add_problem(store, elsewhere, 1.2, {"tile_n": 64}, made=other(gpu_name="NVIDIA H100"))
        add_problem(store, modelled, 1.2, {"cta_group": 1}, made=MODELLED)
        config_id = default(asked).vary({"tile_n": 64}).config_id
        rows = cell(asked, config=config_id) + cell(elsewhere) + cell(modelled)
        report = gather(store, peers=read_peers([written(tmp_path / "p.csv", rows)])).report
    with_peers = [view for view in report.problems if view.peers is not None]
    assert [view.problem for view in with_peers] == [asked]
    assert with_peers[0].peers is not None
    assert with_peers[0].peers.same_config is True
    (file,) = report.peer_files
    assert (file.cells, file.used) == (3, 1)
    assert "2 cells have no measured winner of that GPU here" in file.note
    place = next(view for view in report.places if view.peer_cells)
    assert place.geomean_peer == pytest.approx(0.8)
    assert place.peer_wins == 0


def test_another_kernel_than_the_winner_is_marked(tmp_path: Path) -> None:
    asked = problem()
    with TuningStore.open(":memory:", with_shipped=False) as store:
        store.set_winner(store.record(asked, default(asked), ran(1.2), POLICY))
        path = written(tmp_path / "p.csv", cell(asked, config="0123456789abcdef"))
        (view,) = gather(store, peers=read_peers([path])).report.problems
    assert view.peers is not None
    assert view.peers.same_config is False


def test_a_cell_with_a_wrong_result_is_left_out(tmp_path: Path) -> None:
    rows = cell(problem(), error="off by 3") + cell(problem(batch=3))
    table = read_peers([written(tmp_path / "p.csv", rows)])
    assert set(table.cells) == {(problem(batch=3), GPU)}
    (file,) = table.files([])
    assert "1 cells left out: fa4gen's own result was wrong" in file.note


def test_what_stands_there_for_comparison_is_no_peer(tmp_path: Path) -> None:
    rows = [*cell(problem()), line(problem(), "fa4gen-default", 2.0), line(problem(), "copy", 3.0)]
    table = read_peers([written(tmp_path / "p.csv", rows)])
    view = table.cells[problem(), GPU].view("any")
    assert [peer.kernel for peer in view.peers] == ["fast", "slow"]


def test_of_two_files_the_later_cell_counts(tmp_path: Path) -> None:
    old = written(tmp_path / "old.csv", cell(problem()))
    new = written(
        tmp_path / "new.csv",
        [
            line(problem(), "fa4gen", 1.0, date="2026-04-01T00:00:00+00:00"),
            line(problem(), "fast", 2.0, date="2026-04-01T00:00:00+00:00"),
        ],
    )
    for order in ([old, new], [new, old]):
        table = read_peers(order)
        assert table.cells[problem(), GPU].view("").best.speedup == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("time_us", "fast", "line 2: time_us: got 'fast', allowed: a number above 0"),
        ("ratio_low", "0", "ratio_low: got '0'"),
        ("tflops", "inf", "tflops: got 'inf'"),
        ("head_dim", "-4", "head_dim: got '-4'"),
        ("dtype", "fp4", "dtype: got 'fp4'"),
    ],
)
def test_an_illegal_value_names_its_line(
    tmp_path: Path, name: str, value: str, message: str
) -> None:
    path = written(tmp_path / "p.csv", [line(problem(), "fa4gen", 1.0, **{name: value})])
    with pytest.raises(ReportError, match=message):
        read_peers([path])


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b"a\0b\n"])
def test_a_file_that_is_no_such_csv_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=r"p\.csv.*allowed: a .*benchmarks/peers\.py"):
        read_peers([path])


def test_a_line_that_is_too_short_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(f"{','.join(COLUMNS)}\n1,2\n")
    with pytest.raises(ReportError, match="line 2"):
        read_peers([path])


def test_the_recorded_file_of_the_repository_reads() -> None:
    table = read_peers([RECORDED])
    assert len(table.cells) == 79
    # FlashAttention-2 has no kernel where K and V differ in head_dim.
    assert {len(cell.peers) for cell in table.cells.values()} == {2, 3}
