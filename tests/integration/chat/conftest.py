"""Every test here must leave nothing behind."""

from tests.integration.nothing_left_over import nothing_left_over

__all__ = ["nothing_left_over"]
