"""Every statement of the chat seed and of its contract pages has a test that names it, and the reverse.

A test names statements by `@pytest.mark.states("sem-chat/frame/not-json", …)`, on itself or on its class. The
statements are listed in `tests/statements/*.toml`. Read from the tests' text: a run of one test must not
look as if the others were missing.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _statements() -> dict[str, str]:
    listed: dict[str, str] = {}
    for path in sorted((TESTS / "statements").glob("*.toml")):
        for name, words in tomllib.loads(path.read_text()).items():
            assert name.split("/")[0] == path.stem.replace("_", "-"), f"{name} is in {path.name}"
            assert isinstance(words, str), name
            listed[name] = words
    return listed


def _named_by_tests() -> Iterator[tuple[str, str]]:
    """`(statement, test)`; of tests that are run only: a fixture or a helper proves nothing."""
    for path in sorted(TESTS.rglob("test_*.py")):
        source = path.read_text()
        if "mark.states(" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, Named):
                continue
            where = f"{path.relative_to(TESTS)}::{node.name}"
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.states":
                    assert node.name.lower().startswith("test"), f"{where} is no test"
                    assert decorator.args, f"{where} names nothing"
                    for argument in decorator.args:
                        assert isinstance(argument, ast.Constant), f"{where}: {ast.unparse(argument)}"
                        yield str(argument.value), where


def test_every_statement_has_a_test_that_names_it() -> None:
    named = {statement for statement, _ in _named_by_tests()}
    assert sorted(set(_statements()) - named) == []


def test_every_named_statement_is_listed() -> None:
    listed = _statements()
    assert sorted(f"{name} ({where})" for name, where in _named_by_tests() if name not in listed) == []
