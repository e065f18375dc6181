"""For all tests: what hypothesis draws is judged, not how fast a loaded machine draws it."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# By default an example may take 200 ms, and what is slow to draw is an error. Both are measured by the clock
# on the wall, so that a machine that is busy with other things fails tests of pure functions. What may take
# its share of time only is asserted where it matters, in processor time (tests/unit/errors).
settings.register_profile("any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_machine")
