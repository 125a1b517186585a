"""Bar and line charts as small SVG files. The same figures give the same bytes."""

import math
from collections.abc import Mapping
from html import escape
from itertools import cycle

_OURS, _OTHERS = "#1f6feb", "#8b949e"
# The palette of Okabe and Ito, which readers with a color vision deficiency can tell apart.
_COLORS = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#000000", "#999999", "#b8a800")
_FONT = "font-family='sans-serif' font-size='12'"


def bars(title: str, values: Mapping[str, float], ours: str) -> str:
    """Return a chart with one bar for each value, the largest first.

    ours: bars whose name starts with this are highlighted.
    """
    left, longest, step = 260, 400, 28
    largest = max(values.values())
    parts = []
    for number, (name, value) in enumerate(sorted(values.items(), key=lambda item: -item[1])):
        y, length = 34 + number * step, longest * value / largest
        color = _OURS if name.startswith(ours) else _OTHERS
        parts += [
            _text(left - 8, y + 14, name, "end"),
            f"<rect x='{left}' y='{y}' width='{length:.1f}' height='20' fill='{color}'/>",
            _text(left + length + 6, y + 14, f"{value:,.0f}"),
        ]
    return _svg(title, left + longest + 60, 40 + len(values) * step, parts)


def lines(title: str, x_label: str, series: Mapping[str, Mapping[int, float]], ours: str) -> str:
    """Return a chart with one line for each series, from x to y, on two logarithmic axes.

    ours: lines whose name starts with this are drawn thicker.
    """
    left, top, width, height = 60, 40, 440, 320
    xs = sorted({x for points in series.values() for x in points})
    ys = [y for points in series.values() for y in points.values()]
    bottom, ceiling = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))

    def at(x: float, y: float) -> tuple[float, float]:
        along = math.log(x / xs[0]) / math.log(xs[-1] / xs[0])
        return left + width * along, top + height * (ceiling - math.log10(y)) / (ceiling - bottom)

    parts = [_text(left + width / 2, top + height + 36, x_label, "middle")]
    for power in range(bottom, ceiling + 1):
        y = at(xs[0], 10**power)[1]
        parts.append(f"<path d='M{left} {y:.1f}h{width}' stroke='#d0d7de'/>")
        parts.append(_text(left - 8, y + 4, f"{10**power:,}", "end"))
    parts += [_text(at(x, ys[0])[0], top + height + 18, str(x), "middle") for x in xs]
    label_y = 0.0
    by_last_value = sorted(series.items(), key=lambda item: -item[1][xs[-1]])
    for color, (name, points) in zip(cycle(_COLORS), by_last_value, strict=False):
        places = [at(x, y) for x, y in sorted(points.items())]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        thickness = 3 if name.startswith(ours) else 1.5
        parts.append(f"<polyline points='{drawn}' fill='none' stroke='{color}' stroke-width='{thickness}'/>")
        label_y = max(places[-1][1] + 4, label_y + 16)  # labels of lines that end close together do not overlap
        parts.append(_text(left + width + 10, label_y, name, color=color))
    return _svg(title, left + width + 270, top + height + 50, parts)


def _text(x: float, y: float, text: str, anchor: str = "start", color: str = "#24292f") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' fill='{color}'>{escape(text)}</text>"


def _svg(title: str, width: float, height: float, parts: list[str]) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' {_FONT}>"
    background = f"<rect width='{width}' height='{height}' fill='#ffffff'/>"
    heading = f"<text x='10' y='20' font-size='14' fill='#24292f'>{escape(title)}</text>"
    return "\n".join([head, background, heading, *parts, "</svg>", ""])
