"""Pieces of a page: everything is in one file, and every text that came from outside is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#667;--paper:#fff;--rule:#e2e5e9;--before:#8d96a3;--after:#1f6feb;
--target:#c2410c;--good:#15803d;--bad:#b91c1c}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa3ad;--paper:#15181c;--rule:#2c3138;--before:#7b8591;
--after:#58a6ff;--target:#fb923c;--good:#4ade80;--bad:#f87171}}
body{margin:0 auto;max-width:900px;padding:24px 16px 64px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:36px 0 8px}
h3{font-size:15px;margin:20px 0 4px}p.soft,.soft{color:var(--soft)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:4px 8px;border-bottom:1px solid var(--rule)}th{color:var(--soft);font-weight:500}
th:first-child,td:first-child{text-align:left}.scroll{overflow-x:auto}
.pass{color:var(--good)}.fail{color:var(--bad);font-weight:600}
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
.grid{stroke:var(--rule)}.mark{stroke:var(--soft);stroke-dasharray:2 3;opacity:.6}
.line{fill:none;stroke-width:1.6;stroke-linejoin:round}.area{stroke:none;opacity:.55}
.line.before{stroke:var(--before)}.line.after{stroke:var(--after)}
.line.target{stroke:var(--target);stroke-dasharray:5 4}
.area.before{fill:var(--before)}.area.after{fill:var(--after)}.area.limiting{fill:var(--target)}
.key{margin:0 0 4px;font-size:13px;color:var(--soft)}.key b{font-weight:600}.key .before{color:var(--before)}
.key .after{color:var(--after)}.key .target{color:var(--target)}audio{width:100%}ul{padding-left:20px}
figure{margin:0 0 8px}figcaption{font-size:13px;color:var(--soft)}.pair{display:flex;flex-wrap:wrap;gap:16px}
.pair figure{flex:1 1 380px}.cell{fill:var(--target)}svg text.ink{fill:var(--ink)}
summary{cursor:pointer;color:var(--soft)}
"""

KEY = '<p class="key"><b class="before">before</b> · <b class="after">after</b>{more}</p>'
"""Above a plot with two sides."""


def document(name: str, parts: Iterable[str]) -> str:
    """The page, of a name that is escaped already and parts that are markup."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{name}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def section(heading: str, content: str) -> str:
    """A heading with what stands below it; nothing where that is nothing."""
    return f"<h2>{heading}</h2>{content}" if content else ""


def items(sentences: Iterable[str]) -> str:
    """A list of sentences."""
    found = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{found}</ul>" if found else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, escaped: bool = False) -> str:
    """A table; cells are escaped here unless they were."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{cell if escaped else escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{titles}</tr>{body}</table></div>'
