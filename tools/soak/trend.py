"""The slope of noisy points: Theil–Sen, which some wild points do not move."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

Points = Sequence[tuple[float, float]]

_MOST_POINTS = 400


def slope(points: Points) -> float:
    """The median of the slopes of all pairs; 0 where there are none.

    >>> slope([(0, 1), (1, 2), (2, 3), (3, 100)])
    1.0
    """
    step = max(1, len(points) // _MOST_POINTS)
    pairs = itertools.combinations(points[::step], 2)
    slopes = [(late - early) / (there - here) for (here, early), (there, late) in pairs if there != here]
    return statistics.median(slopes) if slopes else 0.0


def growth(points: Points) -> float:
    """What the trend adds from the first point to the last."""
    return slope(points) * (points[-1][0] - points[0][0]) if points else 0.0
