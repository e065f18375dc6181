"""The soak's verdict: what grows is found, noise is not, and every growth that is allowed has its reason."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree

import pytest

from tools.soak.bounds import judge
from tools.soak.chart import Panel, svg
from tools.soak.measures import Sample
from tools.soak.trend import growth, slope

RESTS = 30


def run_of(**measures: list[float]) -> list[Sample]:
    """Samples at rest, two minutes apart, a thousand sessions and two deploys each."""
    return [
        {
            "seconds": 120.0 * nth,
            "at_rest": 1.0,
            "started sessions": 1000.0 * nth,
            "caused errors": 300.0 * nth,
            "deploys": 2.0 * nth,
            "conversations": 400.0 * nth,
            **{name.replace("__", "/"): values[nth] for name, values in measures.items()},
        }
        for nth in range(RESTS)
    ]


def noisy(level: float, each: float, noise: float) -> list[float]:
    chance = random.Random(7)
    return [level + each * nth + chance.uniform(-noise, noise) for nth in range(RESTS)]


@pytest.mark.parametrize(
    ("measure", "values", "good"),
    [
        ("runner__megabytes", noisy(90, 0, 2), True),
        ("runner__megabytes", noisy(90, 0.7, 2), False),
        ("runner__descriptors", noisy(40, 0, 1), True),
        ("runner__descriptors", noisy(40, 0.25, 1), False),
        ("runner__threads", noisy(11, 0.2, 0), False),
        ("queue__items", [0.0] * RESTS, True),
        ("queue__items", [float(nth) for nth in range(RESTS)], False),
        ("session_errors__rows", [300.0 * nth for nth in range(RESTS)], True),
        ("session_errors__rows", [301.0 * nth for nth in range(RESTS)], False),
        ("conversations__rows", [400.0 * nth for nth in range(RESTS)], True),
        ("conversations__rows", [401.0 * nth for nth in range(RESTS)], False),
        ("conversation_entities__rows", [3_600.0 * nth for nth in range(RESTS)], True),
        ("conversation_entities__rows", [4_400.0 * nth for nth in range(RESTS)], False),
        ("conversation_prompts__rows", [float(nth) for nth in range(RESTS)], False),
        ("database__bytes", [3_000_000.0 * nth for nth in range(RESTS)], True),
        ("database__bytes", [9_000_000.0 * nth for nth in range(RESTS)], False),
    ],
)
def test_what_grows_is_found_and_noise_is_not(measure: str, values: list[float], good: bool) -> None:
    (verdict,) = judge(run_of(**{measure: values}))
    assert verdict.good is good, verdict


def test_caches_that_fill_in_the_first_half_are_no_leak() -> None:
    values = [60.0 + min(nth, 12) for nth in range(RESTS)]
    (verdict,) = judge(run_of(runner__megabytes=values))
    assert verdict.good, verdict


def test_a_peak_under_load_counts_where_a_cap_is_the_bound() -> None:
    samples = run_of(queue_wal__bytes=[0.0] * RESTS)
    samples = [
        {name.replace("queue_wal", "queue wal"): value for name, value in one.items()} for one in samples
    ]
    assert all(verdict.good for verdict in judge(samples))
    peak = {**samples[3], "at_rest": 0.0, "queue wal/bytes": 200.0 * 1024 * 1024}
    assert not all(verdict.good for verdict in judge([*samples, peak]))


def test_a_measure_that_no_rule_names_is_refused() -> None:
    with pytest.raises(ValueError, match="weight has no rule"):
        judge(run_of(weight=[0.0] * RESTS))


def test_some_wild_points_do_not_move_the_slope() -> None:
    points = [(float(x), 2.0 * x) for x in range(20)]
    points[4] = (4.0, 1000.0)
    points[11] = (11.0, -1000.0)
    assert slope(points) == pytest.approx(2.0)
    assert growth(points) == pytest.approx(38.0)
    assert slope([]) == slope([(1.0, 1.0)]) == 0.0


def test_the_chart_is_svg_and_holds_every_line_by_its_name() -> None:
    text = svg(
        [Panel("a < b", {"one & two": [(0, 1), (60, 12_345)], "none": []})], x_unit="minutes", x_scale=60
    )
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    words = "".join(root.itertext())
    assert "a < b" in words
    assert "one & two" in words
