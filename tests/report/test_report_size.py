"""The page of a database of thousands of trials: a few megabytes, made in seconds."""

from __future__ import annotations

import itertools
import random
import time
from uuid import uuid4

import pytest
from sample_database import POLICY, default, failed, problem, ran

from fa4gen.core.outcome import Outcome
from fa4gen.db import Origin, TuningStore, codec
from fa4gen.db.rows import Writer
from fa4gen.report.page.gather import gather
from fa4gen.report.page.render import plotly_js, render
from fa4gen.space import space_for

pytestmark = pytest.mark.slow

MAX_SECONDS = 90.0
"""Some 12 on an idle machine of 2 cores."""
MAX_BYTES = 3_000_000
"""Of the page besides plotly.js, which is 5 MB."""


def fill(store: TuningStore, trials_each: int) -> int:
    """Trials of 336 problems, one in twenty a failure; gives their number."""
    rng, knobs = random.Random(1), space_for("sm90").knobs
    shapes = itertools.product(
        (1, 4, 16), (512, 1024, 2048, 4096, 8192, 16384, 32768), (16, 4), (64, 96, 128, 256),
        (False, True),
    )  # fmt: skip
    count = 0
    with store._database.write() as session:
        writer = Writer(session)
        for batch, seqlen, num_heads_kv, head_dim, causal in shapes:
            asked = problem(
                batch=batch, seqlen_q=seqlen, num_heads_q=16, num_heads_kv=num_heads_kv,
                head_dim=head_dim, causal=causal,
            )  # fmt: skip
            anchor = default(asked)
            for number in range(trials_each):
                some = rng.sample(knobs, 4) if number else []
                config = anchor.vary({knob.name: rng.choice(knob.values) for knob in some})
                gain = 1.0 + 0.3 * rng.random() if number else 1.0
                evaluation = ran(gain, anchor=anchor.config_id)
                if number and rng.random() < 0.05:
                    evaluation = failed(Outcome.COMPILE_ERROR, f"ptxas: {rng.random()}" * 20)
                uid = uuid4().hex
                record = codec.Record(uid, asked, config, POLICY, evaluation)
                writer.add(record, Origin.USER)
                count += 1
                if evaluation.timing is not None:
                    writer.declare(uid, Origin.USER, codec.utc_now(), force=True)
    return count


@pytest.mark.parametrize("trials_each", [3, pytest.param(30, marks=pytest.mark.extended)])
def test_thousands_of_trials_make_a_page_of_a_few_megabytes(trials_each: int) -> None:
    with TuningStore.open(":memory:", with_shipped=False) as store:
        assert fill(store, trials_each) == 336 * trials_each
        start_s = time.monotonic()
        report = gather(store).report
        page = render(report)
        elapsed_s = time.monotonic() - start_s
    assert len(report.problems) == 336
    assert len(page) - len(plotly_js()) < MAX_BYTES
    assert elapsed_s < MAX_SECONDS
