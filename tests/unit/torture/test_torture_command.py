"""The command line of the torture run, and its report; no run is begun."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tools.torture import command
from tools.torture.account import Findings, settle
from tools.torture.chat_account import ChatFindings
from tools.torture.ledger import Account
from tools.torture.report import BEGIN, report, shown
from tools.torture.run import Outcome

_FIGURES = settle(
    Findings(
        producer_events=[],
        client_events=[],
        chats=ChatFindings(events=[], conversations=[]),
        rows=[],
        sessions=[],
        letters=[],
        suppressed=0,
        logged=[],
        killed_instances=frozenset(),
        spoken_by_services=frozenset(),
        waiting=0,
        spooled_files=[],
        restless=[],
        left_over=[],
        died_by_themselves=[],
    )
).figures


def outcome(seed: int, *differences: str) -> Outcome:
    return Outcome(
        seed=seed,
        seconds=120,
        rate=200,
        hits={"kill": 9, "pause": 4, "partition": 3, "cut": 2, "fill": 1, "starve": 1},
        drained_seconds=2.5,
        account=Account(figures={**_FIGURES, "accepted": 24000}, differences=list(differences), remarks=[]),
    )


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the runs that were asked for; each balances, but for that of seed 13."""
    seeds: list[int] = []

    async def run(*, seed: int, **_: object) -> Outcome:
        seeds.append(seed)
        return outcome(seed, *(["untold: one"] if seed == 13 else []))

    monkeypatch.setattr(command, "torture_run", run)
    return seeds


@pytest.mark.parametrize(
    ("arguments", "seeds"),
    [([], [1]), (["--seed", "7"], [7]), (["--seeds", "1-3"], [1, 2, 3]), (["--seeds", "4,9-10"], [4, 9, 10])],
)
def test_one_run_for_each_seed(ran: list[int], arguments: list[str], seeds: list[int]) -> None:
    done = CliRunner().invoke(command.torture, arguments)
    assert done.exit_code == 0, done.output
    assert ran == seeds
    assert done.output.count("PASSED") == len(seeds)


def test_a_difference_fails_the_command_after_all_runs(ran: list[int], tmp_path: Path) -> None:
    accounts = tmp_path / "accounts.json"
    done = CliRunner().invoke(command.torture, ["--seeds", "12-14", "--json", str(accounts)])
    assert done.exit_code == 1
    assert ran == [12, 13, 14]
    assert "does not balance for seed 13" in done.output
    assert "✗ untold: one" in done.output
    assert accounts.read_text().count('"seed"') == 3


@pytest.mark.parametrize("wrong", ["x", "3-1", "1-x", ""])
def test_a_list_of_seeds_that_is_none(ran: list[int], wrong: str) -> None:
    done = CliRunner().invoke(command.torture, ["--seeds", wrong])
    assert done.exit_code == 2
    assert "seed" in done.output
    assert ran == []


def test_the_report_keeps_what_people_wrote(ran: list[int], tmp_path: Path) -> None:
    page = tmp_path / "torture.md"
    page.write_text(f"# The torture run\n\nWritten by hand.\n\n{BEGIN}\n\nyesterday\n")
    assert CliRunner().invoke(command.torture, ["--seeds", "1-2", "--report", str(page)]).exit_code == 0
    text = page.read_text()
    assert text.startswith("# The torture run\n\nWritten by hand.\n\n")
    assert "yesterday" not in text
    assert text.count("| passed |") == 2
    assert "48,000 errors accepted, 0 missing" in text
    assert "Of these the chats:" in text
    assert "0 prompts accepted, 0 missing, 0 without an answer or a word, 0 answered twice" in text


def test_a_failed_run_is_said_to_have_failed() -> None:
    failed = outcome(3, "untold: one")
    assert "FAILED" in shown(failed)
    assert "| FAILED |" in report([failed], command="make torture")
