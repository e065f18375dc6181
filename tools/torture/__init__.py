"""The torture run: the distributed platform under kill -9, pauses, full disks and partitions, and an account.

`python -m tools.torture` runs it. `schedule` and `account` decide, purely; everything else carries out,
watches and writes down. What it is for, and how to read what it prints, stands in docs/torture.md.
"""
