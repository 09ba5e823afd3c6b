"""The view as one HTML file that needs nothing but a browser.

Its scripts are plotly.js and ours, both inline and both named by their hash in the page's content
security policy: a script that found its way in from a database would not run, and nothing can be
loaded from anywhere. Values are escaped by Jinja2 before that.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from fa4gen.core.errors import ReportError
from fa4gen.core.files import write_whole
from fa4gen.report.page import words
from fa4gen.report.page.charts import charts
from fa4gen.report.page.views import ReportView
from fa4gen.report.plain import plain
from fa4gen.tune.importance import BEST_SHARE, EVALUATOR, MIN_TRIALS, SHUFFLES

ASSETS = Path(__file__).resolve().parent / "assets"
TEMPLATE = "report.html.j2"


def render(report: ReportView) -> str:
    """The page."""
    script, plotly = asset("report.js"), plotly_js()
    return environment().get_template(TEMPLATE).render(
        report=report,
        charts=plain(charts(report)),
        style=Markup(asset("report.css")),
        script=Markup(script),
        plotly=Markup(plotly),
        policy=content_policy(script, plotly),
        evaluator=EVALUATOR,
        best_share=BEST_SHARE,
        min_trials=MIN_TRIALS,
        shuffles=SHUFFLES,
    )  # fmt: skip


def write(report: ReportView, path: Path) -> int:
    """Write the page and give its size in bytes; the file appears whole or not at all.

    Raises:
        ReportError: it cannot be written there.
    """
    content = render(report).encode()
    try:
        write_whole(path, content)
    except OSError as error:
        raise ReportError(
            f"report {path}: cannot be written: {error.strerror}; name a file in a folder where "
            f"you may write, with --out"
        ) from error
    return len(content)


@cache
def environment() -> jinja2.Environment:
    """Jinja2 for HTML: everything is escaped, and a name that was not passed is an error."""
    built = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    built.filters |= {
        "us": words.microseconds,
        "tflops": words.tflops,
        "factor": words.factor,
        "percent": words.percent,
        "error": words.error_size,
        "when": words.when,
    }
    return built


@cache
def asset(name: str) -> str:
    """A file beside the template."""
    return (ASSETS / name).read_text(encoding="utf-8")


@cache
def plotly_js() -> str:
    """plotly.js as the ``plotly`` package carries it."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def content_policy(*scripts: str) -> str:
    """A content security policy under which these scripts run, and nothing else does."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    # Plotly styles its charts by script and saves them as pictures by way of data and blob.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        f"img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
