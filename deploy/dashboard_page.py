"""Draws the panels of deploy/grafana/graft.json as one HTML page, from a Prometheus: where there is no Grafana.

    python3 deploy/dashboard_page.py --prometheus http://localhost:9090 > page.html

Needs Python alone. A panel whose queries return nothing says so, and is named on standard error.
"""

import argparse
import json
import math
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

_POINTS = 240  # of a line: one for each pixel or two
_TIMEOUT_SECONDS = 30.0
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 420, 150, 46, 16
_COLOURS = (
    "#3b7dd8",
    "#d9822b",
    "#3d9a50",
    "#c0392b",
    "#8e5fc0",
    "#7f5a3c",
    "#d6559f",
    "#6b7280",
    "#a3a635",
    "#2aa7b8",
)
_DASHBOARD = Path(__file__).parent / "grafana/graft.json"
_STYLE = """body{font:13px sans-serif;margin:12px;background:#f4f5f7;color:#1f2430}
h1{font-size:18px;margin:4px 0 10px}main{display:grid;grid-template-columns:repeat(3,1fr);gap:8px}
section{background:#fff;border:1px solid #dcdfe5;padding:6px 8px;min-width:0}h2{font-size:13px;margin:0 0 4px}
svg{width:100%;height:auto}text{font-size:10px;fill:#6b7280}
ul{list-style:none;margin:2px 0 0;padding:0;max-height:6.6em;overflow:hidden;font-size:11px}
li{display:inline-block;margin-right:10px}.stat ul{max-height:none}
.stat li{display:flex;justify-content:space-between;font-size:15px;margin:0;border-bottom:1px solid #eef0f3;padding:2px}
i{display:inline-block;width:9px;height:9px;margin-right:4px}.none{color:#9aa0ab}"""


@dataclass(frozen=True)
class Line:
    """One series of a panel: its name, and (seconds, value) in order of time, without those that are no number."""

    name: str
    points: list[tuple[float, float]]


def read_panel(prometheus: str, panel: dict[str, Any], start: float, end: float) -> list[Line]:
    """All lines of a panel's queries between two moments; SystemExit where Prometheus refuses or does not answer."""
    lines = []
    for target in panel["targets"]:
        for series in _asked(prometheus, target["expr"], start, end):
            points = [(float(at), float(value)) for at, value in series["values"]]
            finite = [point for point in points if math.isfinite(point[1])]
            if finite:
                lines.append(Line(_named(target.get("legendFormat", ""), series["metric"]), finite))
    return lines


def page(dashboard: dict[str, Any], lines: Sequence[list[Line]], start: float, end: float) -> str:
    """The whole page; `lines` are those of each panel."""
    sections = "".join(_section(panel, of, start, end) for panel, of in zip(dashboard["panels"], lines, strict=True))
    told = f"{_clock(start)} to {_clock(end)} UTC"
    return (
        f"<!doctype html><meta charset=utf-8><title>{escape(dashboard['title'])}</title><style>{_STYLE}</style>"
        f"<h1>{escape(dashboard['title'])}: {told}</h1><main>{sections}</main>\n"
    )


def _asked(prometheus: str, expression: str, start: float, end: float) -> list[dict[str, Any]]:
    step = max((end - start) / _POINTS, 1.0)
    query = urllib.parse.urlencode({"query": expression, "start": start, "end": end, "step": step})
    url = f"{prometheus.rstrip('/')}/api/v1/query_range"
    try:
        with urllib.request.urlopen(f"{url}?{query}", timeout=_TIMEOUT_SECONDS) as reply:  # noqa: S310 - the operator's
            found: list[dict[str, Any]] = json.load(reply)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise SystemExit(f"error: Prometheus at {prometheus} refuses {expression!r}: {error.read().decode()}") from None
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"error: no Prometheus answers at {prometheus}: {error}; --prometheus names it") from None
    return found


def _named(pattern: str, labels: dict[str, str]) -> str:
    for label, value in labels.items():
        pattern = pattern.replace("{{" + label + "}}", value)
    return pattern


def _section(panel: dict[str, Any], lines: list[Line], start: float, end: float) -> str:
    unit = panel["fieldConfig"]["defaults"].get("unit", "none")
    is_stat = panel["type"] == "stat"
    body = "<p class=none>no data</p>"
    if lines:
        drawn = "" if is_stat else _chart(panel, lines, start, end)
        body = f"{drawn}<ul>{''.join(_legend(line, unit, number, is_stat) for number, line in enumerate(lines))}</ul>"
    return f"<section class={panel['type']}><h2>{escape(panel['title'])}</h2>{body}</section>"


def _legend(line: Line, unit: str, number: int, is_stat: bool) -> str:  # noqa: FBT001 - of one caller
    mark = "" if is_stat else f'<i style="background:{_colour(number)}"></i>'
    return f"<li>{mark}{escape(line.name)} <b>{_shown(line.points[-1][1], unit)}</b></li>"


def _chart(panel: dict[str, Any], lines: list[Line], start: float, end: float) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    values = [value for line in lines for _, value in line.points]
    low = min(values) if defaults.get("min") is None else min(float(defaults["min"]), *values)
    high = max(values)
    if high <= low:
        high = low + 1.0
    drawn = [_axis(low + part * (high - low), part, defaults.get("unit", "none")) for part in (0.0, 0.5, 1.0)]
    for at, anchor in ((start, "start"), (end, "end")):
        x = _LEFT if anchor == "start" else _WIDTH
        drawn.append(f'<text x="{x}" y="{_HEIGHT}" text-anchor="{anchor}">{_clock(at)}</text>')
    for number, line in enumerate(lines):
        places = " ".join(_place(at, value, (start, end), (low, high)) for at, value in line.points)
        shape = f'points="{places}" fill="none" stroke="{_colour(number)}" stroke-width="1.5"'
        drawn.append(f'<polyline {shape} stroke-linecap="round"/>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 3}">{"".join(drawn)}</svg>'


def _place(at: float, value: float, span: tuple[float, float], limits: tuple[float, float]) -> str:
    x = _LEFT + (at - span[0]) / (span[1] - span[0]) * (_WIDTH - _LEFT)
    return f"{x:.1f},{_height((value - limits[0]) / (limits[1] - limits[0])):.1f}"


def _height(part: float) -> float:
    return 6 + (1 - part) * (_HEIGHT - _BOTTOM - 6)


def _axis(value: float, part: float, unit: str) -> str:
    y = _height(part)
    line = f'<path d="M{_LEFT} {y:.1f}H{_WIDTH}" stroke="#e6e8ec"/>'
    return f'{line}<text x="{_LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{_shown(value, unit)}</text>'


def _shown(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return _duration(value)
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return number + {"cps": "/s", "reqps": "/s"}.get(unit, "")


def _duration(seconds: float) -> str:
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds * 1000:.3g} ms"


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Draw the dashboard as one HTML page on standard output.")
    parser.add_argument("--prometheus", default="http://localhost:9090", metavar="URL")
    parser.add_argument("--minutes", type=float, default=60.0, help="how far the page looks back (default: 60)")
    parser.add_argument("--dashboard", type=Path, default=_DASHBOARD, metavar="FILE", help="Grafana's JSON of it")
    options = parser.parse_args()
    dashboard = json.loads(options.dashboard.read_text("utf-8"))
    end = time.time()
    start = end - 60 * options.minutes
    lines = [read_panel(options.prometheus, panel, start, end) for panel in dashboard["panels"]]
    empty = [panel["title"] for panel, of in zip(dashboard["panels"], lines, strict=True) if not of]
    sys.stderr.write(f"{len(lines)} panels, without data: {', '.join(empty) or 'none'}\n")
    sys.stdout.write(page(dashboard, lines, start, end))


if __name__ == "__main__":
    main()
