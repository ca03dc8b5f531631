"""The HTML page of a report: skeleton, style, and blocks of text, numbers and tables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


@dataclasses.dataclass(frozen=True)
class Block:
    """A piece of a report.

    Args:
        html: Its markup; everything that came from outside is escaped by the function that made it.
    """

    html: str


@dataclasses.dataclass(frozen=True)
class Section:
    """A headed part of a report.

    Args:
        title: The heading.
        blocks: What stands under it.
    """

    title: str
    blocks: Sequence[Block]


def page(title: str, body: str) -> str:
    """The whole file: a policy that forbids the network, the style, and a body that is markup already."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>{body}</body></html>\n"
    )


# ---------------------------------------------------------------------------------------------------- words


def text(words: str) -> Block:
    """Paragraphs, separated by blank lines."""
    paragraphs = [p.strip() for p in words.split("\n\n")]
    return Block("".join(f"<p>{escape(p)}</p>" for p in paragraphs if p))


def code(words: str, summary: str | None = None) -> Block:
    """Lines as they are, for copying; behind a summary that opens, if one is given."""
    shown = f"<pre><code>{escape(words)}</code></pre>"
    return Block(f"<details><summary>{escape(summary)}</summary>{shown}</details>" if summary else shown)


def facts(items: Mapping[str, Any]) -> Block:
    """A few headline numbers, large, with what each is: {"bits per dimension, held-out": "2.31"}."""
    cells = "".join(
        f"<div><strong>{escape(_cell(value))}</strong><span>{escape(name)}</span></div>"
        for name, value in items.items()
    )
    return Block(f'<div class="facts">{cells}</div>')


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], caption: str | None = None) -> Block:
    """A plain table; numbers are shown to four digits and aligned to the right.

    Raises:
        ValueError: A row has another number of cells than there are columns.
    """
    if bad := [row for row in rows if len(row) != len(columns)]:
        raise ValueError(f"a row of {len(bad[0])} cells cannot stand in a table of {len(columns)} columns: {bad[0]!r}")
    numeric = [all(isinstance(row[c], (int, float)) for row in rows) and bool(rows) for c in range(len(columns))]
    mark = [' class="number"' if n else "" for n in numeric]
    head = "".join(f"<th{m}>{escape(name)}</th>" for name, m in zip(columns, mark, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{m}>{escape(_cell(v))}</td>' for v, m in zip(row, mark, strict=True))}</tr>" for row in rows
    )
    return Block(
        f'<figure><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f"{caption_of_figure(caption)}</figure>"
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return number(value)
    return "" if value is None else str(value)


def number(value: float) -> str:
    """A number to four significant digits, without an exponent where it is readable without."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        decimals = max(0, 3 - math.floor(math.log10(abs(value))))
        return f"{value:,.{decimals}f}"
    return f"{value:.3e}"


def caption_of_figure(words: str | None) -> str:
    """The words under a figure, or nothing."""
    return f"<figcaption>{escape(words)}</figcaption>" if words else ""


def definitions(items: Sequence[tuple[str, str]]) -> str:
    """Names with their values."""
    return "<dl>" + "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in items) + "</dl>"


_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --muted: #59636e; --rule: #d8dee4; --paper: #fff; --tint: #f5f7f9;
  --mark: #9a6700; --series-1: #2f6fd0; --series-2: #c2561a; --series-3: #1f8a5b; --series-4: #8250a8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --muted: #9aa4ae; --rule: #343b43; --paper: #14171a;
  --tint: #1d2125; --mark: #d9a62e; --series-1: #6ca4f5; --series-2: #ee8c52; --series-3: #4fc08d;
  --series-4: #bf95e6 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1040px; padding: 24px 18px 64px; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; -webkit-text-size-adjust: 100% }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .4em 0 .2em; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.4em 0 .8em; padding-bottom: .3em; border-bottom: 1px solid var(--rule) }
p { margin: .6em 0; max-width: 70ch }
.subtitle { color: var(--muted); margin-top: 0 }
pre { background: var(--tint); border-radius: 6px; padding: 10px 14px; margin: 1em 0; white-space: pre-wrap;
  overflow-wrap: anywhere }
code { font: .85rem/1.5 ui-monospace, monospace }
figure { margin: 1.2em 0 }
figcaption { color: var(--muted); font-size: .82rem; line-height: 1.45; margin-top: .7em; max-width: 90ch }
img { display: block; width: 100%; height: auto; image-rendering: pixelated }
svg { display: block; width: 100%; height: auto; overflow: visible }
.scroll { overflow-x: auto }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)); gap: 26px 30px }
.chart.wide { max-width: 760px }
.chart.narrow { max-width: 380px }
h3 { font-size: .88rem; font-weight: 600; margin: 0 0 .5em }
.legend { display: flex; flex-wrap: wrap; gap: 2px 12px; font-size: .74rem; color: var(--muted); margin-top: .4em }
.legend i { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 5px;
  vertical-align: middle }
.labels { display: grid; font-size: .72rem; color: var(--muted); text-align: center; line-height: 1.25;
  padding-bottom: 4px }
.labels span { display: flex; flex-direction: column; justify-content: end }
.labels i { font-style: normal; opacity: .75 }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--card)), 1fr)); gap: 16px 26px }
.pair { display: grid; gap: 0 12px }
.distances { display: grid; text-align: center; font-size: .74rem; color: var(--muted);
  font-variant-numeric: tabular-nums }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 14px 24px;
  margin: 1em 0 1.4em }
.facts strong { display: block; font-size: 1.45rem; line-height: 1.25; font-weight: 600;
  font-variant-numeric: tabular-nums }
.facts span { display: block; font-size: .8rem; line-height: 1.35; color: var(--muted) }
table { border-collapse: collapse; font-size: .9rem; min-width: 50% }
th, td { padding: 8px 20px 8px 0; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top }
thead th { font-size: .78rem; font-weight: 600; color: var(--muted) }
h3 small { display: block; font-weight: 400; color: var(--muted); font-size: .78rem }
th small, td small { display: block; font-weight: 400; color: var(--muted); font-size: .76rem }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
mark { background: none; color: var(--mark); font-size: .76rem; font-weight: 600 }
details { margin: .5em 0 }
summary { cursor: pointer; font-size: .85rem; color: var(--muted) }
dl { display: grid; grid-template-columns: minmax(7em, auto) 1fr; gap: 3px 18px; font-size: .82rem; margin: .6em 0 1em;
  padding: 10px 14px; background: var(--tint); border-radius: 6px }
dt { color: var(--muted) }
dd { margin: 0; overflow-wrap: anywhere }
.warning { color: var(--mark); font-size: .85rem }
@media (max-width: 520px) {
  body { padding: 14px 14px 48px }
  dl { grid-template-columns: 1fr; gap: 0 }
  dd { margin-bottom: 6px }
}
@media print { body { max-width: none } details, figure { break-inside: avoid } }
"""
