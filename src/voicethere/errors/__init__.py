"""What an error is: the codes, the envelope, the record, and the one function that makes it from a cause.

Knows no I/O, no session and no transport. Everything that leaves here is redacted and bounded.

Example:
    >>> record = make_record(error, code=SessionErrorCode.RUNNER_INTERNAL, error_id=..., session_id=...,
    ...                      project_id=..., build_id=None, occurred_at=clock.now())
    >>> fit_envelope(record.envelope(), Bounds().envelope_bytes)
"""

from voicethere.errors.bounds import Bounds, context_problem, fit_envelope, truncate_context
from voicethere.errors.causes import Cause, Crash, CrashKind, HandlerFailure
from voicethere.errors.codes import (
    CATALOG,
    LOCAL_CODES,
    REMOTE_CODES,
    SESSION_ERROR_CODES,
    CodeInfo,
    ErrorScope,
    ErrorSource,
    SessionErrorCode,
)
from voicethere.errors.convert import crash_words, make_record
from voicethere.errors.records import ENVELOPE_TYPE, ErrorRecord, SessionErrorEnvelope
from voicethere.errors.redact import REDACTED, Redactor
from voicethere.errors.times import iso, iso_from_epoch, parse_iso

__all__ = [
    "CATALOG",
    "ENVELOPE_TYPE",
    "LOCAL_CODES",
    "REDACTED",
    "REMOTE_CODES",
    "SESSION_ERROR_CODES",
    "Bounds",
    "Cause",
    "CodeInfo",
    "Crash",
    "CrashKind",
    "ErrorRecord",
    "ErrorScope",
    "ErrorSource",
    "HandlerFailure",
    "Redactor",
    "SessionErrorCode",
    "SessionErrorEnvelope",
    "context_problem",
    "crash_words",
    "fit_envelope",
    "iso",
    "iso_from_epoch",
    "make_record",
    "parse_iso",
    "truncate_context",
]
