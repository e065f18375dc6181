"""Structured logs of a role: one JSON object a line, to a file or to stderr."""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import structlog

MAX_LOG_BYTES = 50 * 1024 * 1024
KEPT_LOGS = 3


def configure_logs(
    *, level: str, file: Path | None = None, role: str | None = None, instance: str | None = None
) -> None:
    """Send our logs, and those of the libraries, as JSON lines to `file` (else stderr).

    A file that has grown to `MAX_LOG_BYTES` is set aside as `file.1`; `KEPT_LOGS` of those are kept.

    Each line says which `role` of which `instance` wrote it, and, where somebody bound them, the `request_id`
    and the `session_id` that it is about.

    Raises:
        OSError: the file cannot be written.
    """
    process = {name: value for name, value in (("role", role), ("instance", instance)) if value is not None}

    def tell_process(
        _logger: Any, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        for name, value in process.items():
            event.setdefault(name, value)
        return event

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        tell_process,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr) if file is None else _to_file(file)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in (
        "aiortc",
        "aioice",
        "httpx",
        "httpcore",
        "alembic",
        "uvicorn.access",
        "websockets",
        "urllib3",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _to_file(file: Path) -> logging.StreamHandler[Any]:
    return RotatingFileHandler(file, maxBytes=MAX_LOG_BYTES, backupCount=KEPT_LOGS, encoding="utf-8")
