"""The frame and the parts of a study's page: one HTML file that works without a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

Cells = Sequence[tuple[str, str]]
"""(class, text) of each cell of a row."""

_STYLE = """
:root { --ink:#1b2733; --muted:#6b7785; --line:#e3e7eb; --accent:#c8553d; --wash:#f6f8f9; }
* { box-sizing:border-box; }
body { margin:0; font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif; color:var(--ink);
       background:#fff; }
main { max-width:1180px; margin:0 auto; padding:28px 28px 56px; }
h1 { font-size:25px; margin:0 0 4px; letter-spacing:-.01em; }
h2 { font-size:18px; margin:36px 0 6px; }
p { margin:6px 0; max-width:86ch; } .muted { color:var(--muted); }
.badge { display:inline-block; padding:1px 9px; border-radius:10px; font-size:12.5px;
         font-weight:600; vertical-align:3px; margin-left:8px; }
.measured { background:#dff1e4; color:#1f6b36; } .modelled { background:#fcefcf; color:#8a5a00; }
.emulated { background:#dcedf8; color:#1d5a86; }
.tiles { display:flex; flex-wrap:wrap; gap:12px; margin:20px 0 8px; }
.tile { background:var(--wash); border:1px solid var(--line); border-radius:8px;
        padding:10px 16px; min-width:170px; flex:1; }
.tile b { display:block; font-size:22px; font-variant-numeric:tabular-nums; }
.tile span { color:var(--muted); font-size:13px; }
.table { overflow-x:auto; } table { border-collapse:collapse; width:100%; font-size:13.5px; }
th { text-align:left; color:var(--muted); font-weight:600; border-bottom:2px solid var(--line);
     padding:5px 10px 5px 0; white-space:nowrap; }
td { border-bottom:1px solid var(--line); padding:5px 10px 5px 0; vertical-align:top;
     font-variant-numeric:tabular-nums; }
td.number, th.number { text-align:right; white-space:nowrap; }
td.who { color:var(--accent); font-weight:600; min-width:150px; } tr.front td { font-weight:600; }
footer { margin-top:40px; padding-top:12px; border-top:1px solid var(--line);
         color:var(--muted); font-size:13px; }
"""


def document(title: str, subject: str, scripts: str, body: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: heading and, before the subject, the window's title.
        subject: what it is about.
        scripts: JavaScript that the figures need.
        body: HTML, the heading included.
    """
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}: {escape(subject)}</title>",
            f"<style>{_STYLE}</style>",
            f"<script>{scripts}</script>",
            "</head><body><main>",
            *body,
            "</main></body></html>",
        ]
    )


def heading(title: str, badges: Sequence[str], subject: str) -> str:
    """The title with a badge for each source of numbers, the subject under it."""
    marks = "".join(f' <span class="badge {b}">{b}</span>' for b in badges)
    return f'<h1>{escape(title)}{marks}</h1><p class="muted">{escape(subject)}</p>'


def section(title: str, text: str) -> str:
    """A second heading with a paragraph under it."""
    return f'<h2>{escape(title)}</h2><p class="muted">{escape(text)}</p>'


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """The few numbers that matter, each with what it is."""
    cells = (
        f'<div class="tile"><b>{escape(b)}</b><span>{escape(s)}</span></div>' for b, s in pairs
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def table(head: Sequence[str], body: Iterable[tuple[str, Cells]]) -> str:
    """A table; ``body`` is (class of the row, its cells)."""
    top = "".join(
        f"<th{' class=number' if i else ''}>{escape(text)}</th>" for i, text in enumerate(head)
    )
    lines = []
    for kind, cells in body:
        inner = "".join(f'<td class="{c}">{escape(text)}</td>' for c, text in cells)
        lines.append(f'<tr class="{kind}">{inner}</tr>')
    return (
        f'<div class="table"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def facts(pairs: Mapping[str, str], *more: str) -> str:
    """The small print at the foot: what is not empty, then other lines."""
    text = " &middot; ".join(f"{name} {escape(value)}" for name, value in pairs.items() if value)
    lines = "".join(f"<p>{escape(line)}</p>" for line in more)
    return f"<footer><p>{text}</p>{lines}</footer>"
