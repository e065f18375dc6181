"""The fault matrix: every fault in a real session, and whether all three parties were told why."""
