"""Curves with their bands as an SVG, by hand: no plotting library to install, and a browser shows it.

Owns the drawing; pure. Called by `scripts.simulation.command` and by the benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from scripts.simulation.report import Point, Report

WIDTH, HEIGHT = 900, 560
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 50, 60
# Okabe and Ito, "Color Universal Design", 2008: told apart by colour-blind people
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")


def draw(report: Report) -> str:
    """Return the SVG: mean accuracy over labels a strategy, a standard deviation to each side, and the full score as a line."""
    points = [point for one in report.strategies for point in one.curve]
    scale = _Scale(points, report.full_score)
    title = f"{report.data.name}: accuracy over labels, mean of {report.seeds} seeds ± 1 sd, {report.algorithm}"
    box, font = f'viewBox="0 0 {WIDTH} {HEIGHT}"', 'font-family="sans-serif" font-size="13"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} {font} role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="28" font-size="16">{escape(title)}</text>',
        *_axes(scale),
        *_full(scale, report.full_score),
    ]
    for number, one in enumerate(report.strategies):
        parts += _curve(scale, one.curve, one.strategy, number)
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Scale:
    def __init__(self, points: Sequence[Point], full: float) -> None:
        self.x_low, self.x_high = min(p.labels for p in points), max(p.labels for p in points)
        low = min(p.mean - p.sd for p in points)
        self.y_low, self.y_high = max(0.0, low - 0.02), min(1.0, max(full, *(p.mean + p.sd for p in points)) + 0.02)

    def x(self, labels: float) -> float:
        share = (labels - self.x_low) / max(self.x_high - self.x_low, 1)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, score: float) -> float:
        share = (score - self.y_low) / max(self.y_high - self.y_low, 1e-9)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)


def _axes(scale: _Scale) -> list[str]:
    parts = []
    for step in range(6):
        score = scale.y_low + step * (scale.y_high - scale.y_low) / 5
        labels = scale.x_low + step * (scale.x_high - scale.x_low) / 5
        y, x = scale.y(score), scale.x(labels)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{score:.2f}</text>')
        parts.append(f'<text x="{x}" y="{HEIGHT - _BOTTOM + 20}" text-anchor="middle">{labels:.0f}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 16}" text-anchor="middle">labels</text>')
    parts.append(f'<text transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">accuracy on the test part</text>')
    return parts


def _full(scale: _Scale, full: float) -> list[str]:
    y = scale.y(full)
    return [
        f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="#555" stroke-dasharray="6 4"/>',
        f'<text x="{WIDTH - _RIGHT + 8}" y="{y + 4}" fill="#555">whole pool {full:.3f}</text>',
    ]


def _curve(scale: _Scale, curve: Sequence[Point], name: str, number: int) -> list[str]:
    colour = COLOURS[number % len(COLOURS)]
    upper = [f"{scale.x(p.labels)},{scale.y(min(p.mean + p.sd, scale.y_high))}" for p in curve]
    lower = [f"{scale.x(p.labels)},{scale.y(max(p.mean - p.sd, scale.y_low))}" for p in reversed(curve)]
    line = " ".join(f"{scale.x(p.labels)},{scale.y(p.mean)}" for p in curve)
    y = HEIGHT - _BOTTOM - 20 * (number + 1)
    return [
        f'<polygon points="{" ".join([*upper, *lower])}" fill="{colour}" fill-opacity="0.15"/>',
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>',
        f'<line x1="{WIDTH - _RIGHT + 10}" x2="{WIDTH - _RIGHT + 34}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>',
        f'<text x="{WIDTH - _RIGHT + 42}" y="{y + 4}">{escape(name)}</text>',
    ]
