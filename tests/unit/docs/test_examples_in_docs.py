"""What the README and the docs show works: Python compiles and imports, agents load in the sandbox, and every
command that is named exists."""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path

import pytest

from tests.e2e.markdown_blocks import Block, blocks
from tests.unit.docs.named_commands import named_commands, problem_of
from voicethere.adapters.sandbox import ZygoteSandbox
from voicethere.roles.runner.verify import SandboxBundleVerifier

ROOT = Path(__file__).parents[3]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def python_blocks() -> list[tuple[str, Block]]:
    found = []
    for page in PAGES:
        of_page = [block for block in blocks(page) if block.language in ("python", "py")]
        found += [(f"{page.name}-{number}", block) for number, block in enumerate(of_page, start=1)]
    return found


PYTHON = python_blocks()
AGENTS = [(name, block) for name, block in PYTHON if "define_agent(" in block.body or "Agent(" in block.body]


def test_there_are_examples_to_check() -> None:
    assert {"README.md-1", "index.md-1", "tutorial.md-1", "tutorial.md-2"} <= {name for name, _ in PYTHON}
    assert {"README.md-1", "index.md-1", "tutorial.md-1"} <= {name for name, _ in AGENTS}


@pytest.mark.parametrize("block", [block for _, block in PYTHON], ids=[name for name, _ in PYTHON])
def test_python_compiles_and_what_it_imports_is_there(block: Block) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compile(block.body, "<example>", "exec", flags=flags)
    for node in ast.walk(compile(block.body, "<example>", "exec", flags=flags | ast.PyCF_ONLY_AST)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)
        elif isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)


async def test_the_agents_load_in_the_sandbox(tmp_path: Path) -> None:
    sandbox = ZygoteSandbox(preload=["voicethere.agent.child"], scratch_root=tmp_path / "children")
    try:
        verifier = SandboxBundleVerifier(sandbox, tmp_path / "bundles")
        for name, block in AGENTS:
            report = await verifier.verify(block.body.encode())
            assert report.problem is None, (name, report)
            assert report.hooks, name
    finally:
        await sandbox.aclose()


@EVERY_PAGE
def test_the_commands_that_are_named_exist(page: Path) -> None:
    assert [problem for command in named_commands(page.read_text()) if (problem := problem_of(command))] == []


def test_a_command_that_does_not_exist_is_found() -> None:
    text = "`voicethere projects errors list --session ID`, `voicethere projekts`\n$ voicethere up --x\n"
    problems = [problem_of(command) for command in named_commands(text)]
    assert len(problems) == 3
    assert problems[0] is None
    assert "projekts" in (problems[1] or "")
    assert "--x" in (problems[2] or "")


@EVERY_PAGE
def test_json_is_json(page: Path) -> None:
    for block in blocks(page):
        if block.language == "json":
            json.loads(block.body)


@EVERY_PAGE
def test_the_make_targets_that_are_named_exist(page: Path) -> None:
    targets = {line.partition(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if ":" in line}
    for block in blocks(page):
        if block.language == "console":
            for line in block.body.splitlines():
                words = line.removeprefix("$ ").split()
                if words[:1] == ["make"]:
                    assert words[1] in targets, line
