"""The `voicethere` script: says what is missing where only the agent SDK is installed."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; exit 1 with one line where its packages are not installed."""
    try:
        from voicethere.cli.main import main as run
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("voicethere"):
            raise
        sys.stderr.write(
            f"voicethere: the command needs the package {missing.name!r}, which is not installed. "
            "This is the agent SDK alone; the platform is in the extras: "
            "pip install 'voicethere[server,client,speech]'\n"
        )
        sys.exit(1)
    run()
