"""Journals: every line that was written is found, whatever became of its writer."""

import subprocess
import sys
from pathlib import Path

from tools.torture.journal import Journal, read

_WRITER = """
import os, signal, sys
from pathlib import Path
from tools.torture.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(100):
    journal.write("minted", id=number)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_lines_outlive_the_kill_of_their_writer(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    done = subprocess.run([sys.executable, "-c", _WRITER, str(path)], check=False)
    assert done.returncode == -9
    assert [line["id"] for line in read(path)] == list(range(100))


def test_the_next_writer_goes_on_behind_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for number in (1, 2):
        journal = Journal(path)
        journal.write("accepted", id=number)
        journal.close()
    assert [(line["event"], line["id"]) for line in read(path)] == [("accepted", 1), ("accepted", 2)]


def test_what_is_no_line_of_json_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text('Traceback (most recent call last):\n{"pid": 1}\n[1]\n{"torn": ')
    assert read(path) == [{"pid": 1}]
    assert read(tmp_path / "nothing") == []
