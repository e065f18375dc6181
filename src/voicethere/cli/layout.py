"""Where the embedded platform keeps what, below its data directory."""

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

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            OSError: the data directory cannot be made or written.
        """
        for folder in (
            self.root,
            self.bundles,
            self.logs,
            self.runner,
            self.unpacked,
            self.scratch,
            self.spool,
            self.sessions_spool,
            self.verify_scratch,
        ):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
