"""Which build a rollback without a name goes back to."""

from __future__ import annotations

import pytest

from voicethere.roles.control.rollback import build_before
from voicethere.wire.control_plane import Build, ValidationStatus


def build(build_id: str, *, valid: bool = True) -> Build:
    return Build(
        id=build_id,
        project_id="p",
        size_bytes=1,
        checksum_sha256="0" * 64,
        validation_status=ValidationStatus.VALID if valid else ValidationStatus.INVALID,
        message=None,
        created_at="2026-06-19T12:00:00.000Z",
    )


def before(active: str, served: str, builds: str = "DCBA", broken: str = "") -> str | None:
    """`served` and `builds` are letters, newest first."""
    found = build_before(
        active, served=list(served), builds=[build(letter, valid=letter not in broken) for letter in builds]
    )
    return None if found is None else found.id


@pytest.mark.parametrize(
    ("active", "served", "back"),
    [
        ("C", "CA", "A"),  # B was uploaded between them and never in service
        ("C", "CCAA", "A"),
        ("A", "ACA", None),  # rolled back already: C is what was rolled back from
        ("D", "DACA", "A"),
        ("C", "CDA", "D"),  # an older build that was put into service later
        ("D", "CA", "C"),  # promoted and never deployed
        ("A", "A", None),
        ("C", "", "B"),  # nothing was ever deployed
        ("C", "CC", "B"),  # nothing else was
        ("A", "", None),
    ],
)
def test_it_is_the_one_that_was_in_service_before(active: str, served: str, back: str | None) -> None:
    assert before(active, served) == back


def test_builds_that_do_not_load_are_passed_over() -> None:
    assert before("D", "DCBA", broken="CB") == "A"
    assert before("D", "", broken="CB") == "A"
    assert before("D", "DC", broken="C") is None


def test_an_active_build_that_is_gone_has_none_before() -> None:
    assert before("X", "") is None
