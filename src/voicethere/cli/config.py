"""Where the CLI finds its key, its server and its project; environment variables win over files.

| what | variable | file |
| --- | --- | --- |
| key | `VOICETHERE_API_KEY` | `~/.config/voicethere/credentials.json` |
| server | `VOICETHERE_API_BASE` | the same |
| project | - | `.voicethere/config.json`, here or in a parent folder |

`VOICETHERE_CREDENTIALS_PATH` and `VOICETHERE_PROJECT_CONFIG` name other files.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from voicethere.cli.failure import Failure

DEFAULT_API_BASE = "http://127.0.0.1:8080"
"""Where `voicethere up` serves the control plane unless it is told otherwise."""

T = TypeVar("T")

_API_PATH = "/api/v1"


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """`api_base` is the URL of the control plane, with or without `/api/v1`."""

    api_base: str | None = None
    api_key: str | None = None


class ProjectConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The active project of a folder; no secrets. `bundle` is relative to the folder of `.voicethere`."""

    project_id: str
    project_slug: str | None = None
    name: str | None = None
    bundle: str | None = None


def credentials_path() -> Path:
    """The file that `login` writes."""
    named = os.environ.get("VOICETHERE_CREDENTIALS_PATH")
    return Path(named) if named else Path.home() / ".config" / "voicethere" / "credentials.json"


def stored_credentials() -> Credentials:
    """What the file says; nothing where there is none.

    Raises:
        Failure: the file is there and is no credentials file.
    """
    return _read(credentials_path(), Credentials, "credentials file", "voicethere login") or Credentials()


def effective_credentials() -> Credentials:
    """What to use now: the variables, else the file.

    Raises:
        Failure: the file is needed and broken.
    """
    key, base = os.environ.get("VOICETHERE_API_KEY"), os.environ.get("VOICETHERE_API_BASE")
    stored = Credentials() if key and base else stored_credentials()
    return Credentials(api_base=base or stored.api_base or DEFAULT_API_BASE, api_key=key or stored.api_key)


def write_credentials(credentials: Credentials) -> Path:
    """Write the file atomically, readable by its owner alone.

    Raises:
        Failure: it cannot be written.
    """
    path = credentials_path()
    _write(path, msgspec.to_builtins(credentials), mode=0o600)
    return path


def api_url(base: str) -> str:
    """`base` as the root of all routes.

    Raises:
        Failure: it is no HTTP address.
    """
    trimmed = base.strip().rstrip("/")
    try:
        parts = urlsplit(trimmed)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an address in brackets that is none, a port out of range
        fits = False
    if not fits:
        raise Failure(f"'{base}' is no address of a server: it must be like http://127.0.0.1:8080.")
    return trimmed if trimmed.endswith(_API_PATH) else trimmed + _API_PATH


def project_config_path() -> Path | None:
    """The project file that counts here: the named one, else the nearest above; None where there is none."""
    named = os.environ.get("VOICETHERE_PROJECT_CONFIG")
    if named:
        return Path(named)
    here = Path.cwd()
    for folder in (here, *here.parents):
        candidate = folder / ".voicethere" / "config.json"
        if candidate.is_file():
            return candidate
    return None


def project_config() -> ProjectConfig | None:
    """The active project, if one was chosen.

    Raises:
        Failure: the file is there and is no project file.
    """
    path = project_config_path()
    if path is None:
        return None
    return _read(path, ProjectConfig, "project file", "voicethere projects use NAME")


def write_project_config(config: ProjectConfig) -> Path:
    """Write it where one is in force already, else below the current folder.

    Raises:
        Failure: it cannot be written.
    """
    path = project_config_path() or Path.cwd() / ".voicethere" / "config.json"
    values = {name: value for name, value in msgspec.to_builtins(config).items() if value is not None}
    _write(path, values, mode=0o644)
    return path


def forget_project(project_id: str) -> None:
    """Remove the project file if it names this project (it was deleted)."""
    path = project_config_path()
    if path is None:
        return
    with contextlib.suppress(Failure, OSError):
        config = project_config()
        if config is not None and config.project_id == project_id:
            path.unlink()


def bundle_of(config: ProjectConfig) -> Path | None:
    """The bundle that the project file names, as a path from here."""
    path = project_config_path()
    if config.bundle is None or path is None:
        return None
    return path.parent.parent / config.bundle


def _read(path: Path, kind: type[T], what: str, remedy: str) -> T | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"cannot read the {what} {path}: {error.strerror or error}") from error
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failure(f"the {what} {path} is broken ({error}); `{remedy}` writes it anew") from error


def _write(path: Path, values: Mapping[str, Any], *, mode: int) -> None:
    """Through a temporary file beside it: a reader sees the old file or the new one, never half of one."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made 0600
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise Failure(f"cannot write {path}: {error.strerror or error}") from error
