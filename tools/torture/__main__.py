"""`python -m tools.torture`."""

from tools.torture.command import torture

torture(prog_name="python -m tools.torture")
