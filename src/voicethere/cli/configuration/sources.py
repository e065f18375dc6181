"""Where a setting's value comes from, and what is said of one that is wrong.

A flag wins over its variable, that over the file, that over the default. In the file, a table named like a
role (`[sessions]`) wins over the top level for that role. All problems are found in one go.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

import msgspec

from voicethere.cli.configuration.checks import problems_of
from voicethere.cli.configuration.masking import shown
from voicethere.cli.configuration.settings import ROLES, Configuration, Described, described

CONFIG_VARIABLE = "VOICETHERE_CONFIG"
_TABLES = (*ROLES, "up")
_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")
_MAX_SHOWN = 120

Given = str | bool | Sequence[str]
"""What a flag holds: text, a switch that is on, or the texts of a repeatable one."""


class InvalidConfiguration(Exception):
    """`problems` are sentences: which setting, where from, what is wrong, what would be right."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


class Origin(msgspec.Struct, frozen=True):
    """Where a value comes from, as words: `--port`, `VOICETHERE_PORT`, `voicethere.toml, line 3`."""

    words: str

    def __str__(self) -> str:
        return self.words


DEFAULT = Origin("default")


class Configured(msgspec.Struct, frozen=True):
    """A configuration that is right, and where each of its values comes from."""

    values: Configuration
    origins: Mapping[str, Origin]


class _File(msgspec.Struct, frozen=True):
    path: Path
    text: str
    values: dict[str, Any]

    def origin(self, key: str, table: str | None) -> Origin:
        where = f"{self.path.name}, line {number}" if (number := self._line(key, table)) else self.path.name
        return Origin(where)

    def _line(self, key: str, table: str | None) -> int | None:
        current: str | None = None
        for number, line in enumerate(self.text.splitlines(), 1):
            if heading := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
                name = heading.group(1)
                if name == (key if table is None else f"{table}.{key}"):
                    return number
                current = name
            elif current == table and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""", line):
                return number
        return None


def read(
    role: str | None,
    *,
    flags: Mapping[str, Given],
    environment: Mapping[str, str],
    file: Path | None,
) -> Configured:
    """The configuration of this role; `role` None: what the file says to all.

    `flags` holds only what was really given.

    Raises:
        InvalidConfiguration: something is wrong anywhere in it.
    """
    problems: list[str] = []
    found = None
    if file is not None:
        found = _file(file)
        problems += _unknown_keys(found)
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for key, setting in described().items():
        value, origin = _value(setting, role, flags=flags, environment=environment, file=found)
        origins[key] = origin
        if origin is DEFAULT:
            values[key] = setting.default
            continue
        try:
            values[key] = _typed(setting, value, is_text=origin.words.startswith(("--", "VOICETHERE_")))
        except ValueError as problem:
            problems.append(_sentence(setting, value, origin, str(problem)))
    if problems:
        raise InvalidConfiguration(problems)
    configuration = Configuration(**values)
    wrong = [f"{key} (from {origins[key]}): {words}" for key, words in problems_of(configuration, role)]
    if wrong:
        raise InvalidConfiguration(wrong)
    return Configured(configuration, origins)


def _file(path: Path) -> _File:
    try:
        text = path.read_text(encoding="utf-8")
        return _File(path, text, tomllib.loads(text))
    except OSError as error:
        raise InvalidConfiguration([f"cannot read {path}: {error.strerror or error}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration([f"{path} is no TOML: {error}"]) from None


def _unknown_keys(file: _File) -> list[str]:
    problems = []
    for table, values in [
        (None, file.values),
        *((name, file.values[name]) for name in _TABLES if name in file.values),
    ]:
        if not isinstance(values, dict):
            problems.append(
                f"{table} (from {file.origin(str(table), None)}): a role's name is a table, [{table}]"
            )
            continue
        known = [*described(), *(_TABLES if table is None else ())]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(described())}"
                problems.append(f"{key} (from {file.origin(key, table)}): there is no such setting; {hint}")
    return problems


def _value(
    setting: Described,
    role: str | None,
    *,
    flags: Mapping[str, Given],
    environment: Mapping[str, str],
    file: _File | None,
) -> tuple[Any, Origin]:
    if setting.key in flags:
        return flags[setting.key], Origin(setting.option)
    # An empty variable is one that somebody did not want to set: compose files cannot leave one out.
    if environment.get(setting.variable):
        return environment[setting.variable], Origin(setting.variable)
    if file is not None:
        table = file.values.get(role) if role is not None else None
        if isinstance(table, dict) and setting.key in table:
            return table[setting.key], file.origin(setting.key, role)
        if setting.key in file.values:
            return file.values[setting.key], file.origin(setting.key, None)
    return None, DEFAULT


def _typed(setting: Described, value: Any, *, is_text: bool) -> Any:
    """Raises ValueError, whose words do not repeat the value."""
    if is_text:
        value = _from_text(setting, value)
    try:
        return msgspec.convert(value, setting.type, strict=not is_text, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ValueError(str(error).replace("`", "")) from None


def _path(kind: type, value: Any) -> Path:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("Expected a path")
    return Path(value).expanduser()


def _from_text(setting: Described, value: Given) -> Any:
    kind = setting.plain_type
    if kind is bool:
        if isinstance(value, bool):
            return value
        word = str(value).strip().lower()
        if word not in _TRUE + _FALSE:
            raise ValueError("Expected true or false")
        return word in _TRUE
    if get_origin(kind) is dict:
        pairs = value.split(",") if isinstance(value, str) else list(_texts(value))
        return dict(_pair(pair) for pair in pairs)
    if setting.key == "ice_servers":
        try:
            return json.loads(str(value))
        except ValueError:
            raise ValueError("Expected JSON") from None
    if get_origin(kind) is list:
        items = value.split(",") if isinstance(value, str) else _texts(value)
        return [item.strip() for item in items]
    return str(value).strip()


def _texts(value: Given) -> Sequence[str]:
    assert not isinstance(value, bool)
    return value


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("Expected NAME=VALUE")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        raise ValueError("Expected a number behind the =") from None


def _sentence(setting: Described, value: Any, origin: Origin, problem: str) -> str:
    if setting.setting.secret:
        said = ""
    else:
        try:
            said = f" {json.dumps(shown(setting.key, value), ensure_ascii=False)[:_MAX_SHOWN]}"
        except (TypeError, msgspec.ValidationError):
            said = f" {str(value)[:_MAX_SHOWN]}"
    hint = ""
    if isinstance(value, str) and value.startswith("tcp://") and origin.words == setting.variable:
        hint = (
            " (Kubernetes sets such variables for a service named voicethere: set enableServiceLinks: false)"
        )
    return (
        f"{setting.key} (from {origin}):{said} is wrong: {problem}; it must be {setting.setting.right}{hint}"
    )
