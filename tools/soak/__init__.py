"""The soak: the whole platform under steady, mixed traffic, and a verdict on everything that could grow.

Run as `python -m tools.soak --minutes 60`; `make soak` does. `run` is the course of it, `traffic` what its
clients do, `measures` what is looked at, `bounds` what is right, `report` how it is told.
"""
