"""Problems handed out to several processes."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from fa4gen.core.errors import EvaluationError
from fa4gen.testing.fakes import Behaviour, FakeEvaluator
from fa4gen.tune import tune
from fa4gen.tune.turns import Turns, longest_first


def test_alone_all_are_handed_out_in_order_and_known_ahead():
    turns = Turns(3)
    assert (turns.next(), turns.ahead(), turns.ahead()) == (0, 1, 2)
    assert turns.ahead() is turns.next() is None
    assert turns.left() == []


def test_two_share_and_keep_none_waiting_at_the_end(tmp_path):
    here, there = (Turns(5, tmp_path, 2) for _ in range(2))
    assert (here.next(), there.next()) == (0, 1)
    assert (here.ahead(), there.ahead()) == (2, 3)
    assert here.left() == there.left() == [4]
    assert here.ahead() is None, "whoever is free first shall have it"
    assert there.next() == 4
    assert here.next() is None


def test_the_last_problem_is_nobodys_and_yet_expected_by_all(tmp_path):
    here, there = (Turns(3, tmp_path, 2) for _ in range(2))
    assert (here.next(), there.next()) == (0, 1)
    assert here.ahead() is None
    assert here.likely() == there.likely() == 2
    assert there.next() == 2
    assert here.likely() is None


def test_long_problems_come_first(problem, tmp_path):
    lengths = (512, 4096, 1024, 4096)
    workload = [replace(problem, seqlen_q=n, seqlen_k=n) for n in lengths]
    order = longest_first(workload)
    assert order == [1, 3, 2, 0], "equal ones as they came"
    here, there = (Turns(4, tmp_path, 2, order) for _ in range(2))
    assert (here.next(), there.next(), here.next()) == (1, 3, 2)
    assert here.left() == [0]


def test_what_is_put_back_is_anybodys(tmp_path):
    here, there = (Turns(2, tmp_path, 2) for _ in range(2))
    assert (here.next(), here.next()) == (0, 1)
    here.put_back(1)
    assert there.next() == 1
    assert here.next() is None


def test_a_process_expects_its_share_of_what_is_left(tmp_path):
    weights = (1.0, 4.0, 2.0, 6.0)
    assert Turns(4).weight_to_come(weights) == 13.0
    here, there = (Turns(4, tmp_path, 2) for _ in range(2))
    here.next()
    assert there.weight_to_come(weights) == 6.0


def take_all(folder: Path, taken: Path) -> None:
    turns = Turns(200, folder, 4)
    while (index := turns.next()) is not None:
        with taken.open("a") as file:
            file.write(f"{index}\n")


def test_no_two_processes_take_the_same(tmp_path):
    folder = tmp_path / "turns"
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    files = [tmp_path / f"taken{i}" for i in range(4)]
    processes = [context.Process(target=take_all, args=(folder, file)) for file in files]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    taken = [int(line) for file in files if file.exists() for line in file.read_text().split()]
    assert sorted(taken) == list(range(200))


@pytest.fixture
def four(problem):
    return [replace(problem, batch=batch) for batch in (1, 2, 3, 4)]


def test_kernels_of_the_last_problem_are_compiled_by_whoever_may_get_it(
    four, sku, store, small, tmp_path
):
    turns, other = (Turns(4, tmp_path, 2) for _ in range(2))
    assert [other.next() for _ in range(2)] == [0, 1]
    evaluator = FakeEvaluator(sku)
    tune(four, evaluator=evaluator, store=store, settings=small, turns=turns)
    # Of two left to two processes it took the first alone, and the last once that was done.
    assert {problem for problem, _ in evaluator.prepared_later} == {four[3]}


def test_a_tuner_reports_what_it_was_handed(four, sku, store, small, tmp_path):
    other = Turns(4, tmp_path, 2)
    assert other.next() == 0
    evaluator = FakeEvaluator(sku)
    report = tune(
        four, evaluator=evaluator, store=store, settings=small, turns=Turns(4, tmp_path, 2)
    )
    assert [(one.index, one.problem) for one in report.problems] == list(enumerate(four))[1:]
    assert report.not_started == ()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), EvaluationError("evaluator: broke")])
def test_one_that_ends_early_leaves_the_rest_to_others(four, sku, store, small, tmp_path, error):
    """The one that it had meant to do next as well."""
    evaluator = FakeEvaluator(sku, lambda p, c: Behaviour(raises=error))
    turns, other = (Turns(4, tmp_path, 2) for _ in range(2))
    means = {"evaluator": evaluator, "store": store, "settings": small, "turns": turns}
    if isinstance(error, EvaluationError):
        with pytest.raises(EvaluationError, match="broke"):
            tune(four, **means)
    else:
        assert tune(four, **means).not_started == tuple(four[1:])
    assert other.left() == [1, 2, 3]
