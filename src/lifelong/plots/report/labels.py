"""Texts beside the points of a panel, none on top of another or of a point."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.transforms import Bbox

SIZE = 7.0
"""Of the texts, typographical points (1/72 inch), as all lengths here."""
SIDES = ((1, 1), (1, 0), (-1, -1), (-1, 0), (0, 1), (0, -1), (-1, 1), (1, -1))
"""Where a text may stand, as seen from its point."""


class Label(NamedTuple):
    """A text for the point (x, y), in data coordinates; colour and radius: of the point's marker."""

    x: float
    y: float
    text: str
    colour: str
    radius: float


def strength_text(strength: float) -> str:
    """λ in three digits and few characters.

    >>> strength_text(0.1), strength_text(100), strength_text(31623), strength_text(1e6), strength_text(1e-5)
    ('0.1', '100', '3.16e4', '1e6', '1e-5')
    """
    mantissa, _, exponent = f"{strength:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def name_points(axes: Axes, labels: Sequence[Label]) -> list[Label]:
    """Write each text on the first side of its point that is free, the first labels first; returns those written.

    A text that has room on no side is left out. The axes must have their limits and, after a draw, their place.
    """
    unit = axes.figure.dpi / 72
    panel = axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted()).bounds
    frame = Bbox.from_bounds(*(72 * value for value in panel))
    places = axes.transData.transform([(label.x, label.y) for label in labels]) / unit
    taken = [Bbox([place - label.radius, place + label.radius]) for place, label in zip(places, labels, strict=True)]
    written = []
    for number, (place, label) in enumerate(zip(places, labels, strict=True)):
        others = [*taken[:number], *taken[number + 1 :]]
        half = np.array([0.31 * SIZE * len(label.text), 0.5 * SIZE])
        for side in SIDES:
            beside = label.radius * (0.7 if all(side) else 1) + 1
            centre = place + np.array(side) * (half + beside)
            box = Bbox([centre - half, centre + half])
            if frame.count_contains(box.corners()) == 4 and not box.count_overlaps(others):
                style: dict[str, Any] = {
                    "fontsize": SIZE,
                    "color": _dark(label.colour),
                    "ha": "center",
                    "va": "center",
                    "zorder": 5,
                }
                offset = tuple(centre - place)
                axes.annotate(label.text, label[:2], offset, textcoords="offset points", **style).set_in_layout(False)
                taken.append(box)
                written.append(label)
                break
    return written


def _dark(colour: str) -> tuple[float, ...]:
    """The colour with the contrast that small letters need on white."""
    return tuple(0.6 * part for part in to_rgb(colour))
