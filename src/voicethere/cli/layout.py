"""Where a process keeps what, below its data directory. With engines, only spools and scratch are there."""

from __future__ import annotations

from pathlib import Path


class DataLayout:
    """Paths below `root`. `prepare` makes the folders, readable by their owner alone.

    `spool` (the runners') and `sessions_spool` hold errors that the queue could not take yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.lock = self.root / "up.lock"
        self.database = self.root / "voicethere.db"
        self.queue = self.root / "queue.db"
        self.bundles = self.root / "bundles"
        self.relay = self.root / "relay.sock"
        self.lease = self.root / "coordinator.lock"
        self.logs = self.root / "logs"
        self.runner = self.root / "runner"
        self.unpacked = self.runner / "bundles"
        self.scratch = self.runner / "scratch"
        self.spool = self.runner / "spool"
        self.sessions_spool = self.root / "sessions" / "spool"
        self.verify_scratch = self.root / "verify"

    @property
    def database_url(self) -> str:
        """The store's URL."""
        return f"sqlite:///{self.database}"

    def prepare(self, role: str = "up", *, distributed: bool = False) -> None:
        """Make the folders that this role writes to. With engines, bundles and logs have a place elsewhere.

        Raises:
            OSError: the data directory cannot be made or written.
        """
        folders = [self.root]
        if not distributed:
            folders += [self.bundles, self.logs]
        if role in ("runner", "up"):
            folders += [self.runner, self.unpacked, self.scratch, self.spool]
        if role in ("sessions", "up"):
            folders += [self.sessions_spool]
        if role in ("control", "up"):
            folders += [self.verify_scratch]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
