"""One configuration from flags, variables, a file and defaults; and what is said of a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from voicethere.cli.configuration import Configuration, InvalidConfiguration, read
from voicethere.cli.configuration.masking import shown, without_passwords
from voicethere.cli.configuration.settings import ROLES, described, settings_of
from voicethere.cli.main import cli
from voicethere.wire.session_api import IceServer

ENGINES = {
    "VOICETHERE_REDIS_URL": "redis://:hidden@queue/0",
    "VOICETHERE_DATABASE_URL": "postgresql://me:hidden@db/voicethere",
}


def file_of(folder: Path, text: str) -> Path:
    path = folder / "voicethere.toml"
    path.write_text(text)
    return path


def problems(
    role: str | None = "sessions",
    *,
    flags: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
    file: Path | None = None,
) -> list[str]:
    with pytest.raises(InvalidConfiguration) as caught:
        read(role, flags=flags or {}, environment=environment or {}, file=file)
    return caught.value.problems


def test_flags_win_over_variables_those_over_the_file_that_over_defaults(tmp_path: Path) -> None:
    file = file_of(tmp_path, "port = 1\nops_port = 2\nhost = '192.0.2.1'\nlog_level = 'ERROR'\n")
    found = read(
        "sessions",
        flags={"port": "11"},
        environment={"VOICETHERE_PORT": "12", "VOICETHERE_OPS_PORT": "13"},
        file=file,
    )
    assert (found.values.port, found.values.ops_port, found.values.host) == (11, 13, "192.0.2.1")
    assert found.values.capacity == 64
    assert [str(found.origins[key]) for key in ("port", "ops_port", "host", "capacity")] == [
        "--port",
        "VOICETHERE_OPS_PORT",
        "voicethere.toml, line 3",
        "default",
    ]


def test_the_table_of_a_role_wins_for_that_role_only(tmp_path: Path) -> None:
    file = file_of(tmp_path, "ops_port = 9000\n\n[sessions]\nops_port = 9001\n")
    assert read("sessions", flags={}, environment={}, file=file).values.ops_port == 9001
    found = read("control", flags={}, environment={}, file=file)
    assert found.values.ops_port == 9000
    assert read("sessions", flags={}, environment={}, file=file).origins["ops_port"].words.endswith("line 4")


def test_every_kind_of_value_reads_alike_from_everywhere(tmp_path: Path) -> None:
    wanted = Configuration(
        data_dir=Path("there"),
        ice_servers=[IceServer(urls="turn:relay:3478", username="u", credential="c")],
        host_addresses=["192.0.2.1", "2001:db8::1"],
        strict_sandbox=True,
        runner_settings={"rejoin_seconds": 10, "hook_seconds": 2.5},
        retention_seconds=1.5,
        log_file=Path("log"),
    )
    file = file_of(
        tmp_path,
        """
        data_dir = "there"
        host_addresses = ["192.0.2.1", "2001:db8::1"]
        strict_sandbox = true
        retention_seconds = 1.5
        log_file = "log"
        ice_servers = [{ urls = "turn:relay:3478", username = "u", credential = "c" }]
        [runner_settings]
        rejoin_seconds = 10
        hook_seconds = 2.5
        """,
    )
    assert read("runner", flags={}, environment={}, file=file).values == wanted
    ice = '[{"urls": "turn:relay:3478", "username": "u", "credential": "c"}]'
    environment = {
        "VOICETHERE_DATA_DIR": "there",
        "VOICETHERE_ICE_SERVERS": ice,
        "VOICETHERE_HOST_ADDRESSES": "192.0.2.1, 2001:db8::1",
        "VOICETHERE_STRICT_SANDBOX": "yes",
        "VOICETHERE_RUNNER_SETTINGS": "rejoin_seconds=10,hook_seconds=2.5",
        "VOICETHERE_RETENTION_SECONDS": "1.5",
        "VOICETHERE_LOG_FILE": "log",
    }
    assert read("runner", flags={}, environment=environment, file=None).values == wanted
    flags = {
        "data_dir": "there",
        "ice_servers": ice,
        "host_addresses": ("192.0.2.1", "2001:db8::1"),
        "strict_sandbox": True,
        "runner_settings": ("rejoin_seconds=10", "hook_seconds=2.5"),
        "retention_seconds": "1.5",
        "log_file": "log",
    }
    assert read("runner", flags=flags, environment={}, file=None).values == wanted


def test_a_variable_that_is_empty_says_nothing() -> None:
    assert read("sessions", flags={}, environment={"VOICETHERE_PORT": ""}, file=None).values.port is None


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PORT", "99999", "must be a number from 0 to 65535"),
        ("PORT", "tcp://10.0.0.7:80", "enableServiceLinks: false"),
        ("CAPACITY", "many", "must be a number from 1 to 10000"),
        ("STRICT_SANDBOX", "maybe", "must be true or false"),
        ("LOG_LEVEL", "LOUD", "must be DEBUG, INFO, WARNING or ERROR"),
        ("ICE_SERVERS", "stun:here", "Expected JSON"),
        ("ICE_SERVERS", '[{"urls": "http://here"}]', "is no ICE server"),
        ("ICE_SERVERS", '[{"urls": "turn:here"}]', "needs username and credential"),
        ("RUNNER_SETTINGS", "rejoin_seconds", "NAME=VALUE"),
        ("RUNNER_SETTINGS", "nonsense=1", "is no runner setting"),
        ("HOST_ADDRESSES", "here", "is no IP address"),
        ("REDIS_PREFIX", "with space", "1 to 64 letters"),
        ("DATABASE_URL", "mysql://db/x", "must be like postgresql://"),
        ("DATABASE_URL", "postgresql://db", "names no database"),
        ("REDIS_URL", "http://queue", "must be like redis://"),
        ("PUBLIC_URL", "voice.example.com", "must be like https://"),
        ("OTEL_ENDPOINT", "http://collector:4318/v1/traces", "is added to it"),
        ("BUNDLES_URL", "gs://bucket", "bundles"),
        ("RETENTION_DAYS", "-1", "must be a number from 0"),
    ],
)
def test_what_is_wrong_is_said_with_where_it_is_from_and_what_would_be_right(
    variable: str, value: str, said: str
) -> None:
    (problem,) = problems(environment={f"VOICETHERE_{variable}": value})
    assert problem.startswith(f"{variable.lower()} (from VOICETHERE_{variable})")
    assert said in problem


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    file = file_of(tmp_path, "capacity = 0\n\n[sessions]\nprot = 1\n\n[nobody]\nport = 1\n")
    said = problems(file=file, flags={"port": "-1"})
    assert [problem.split(":")[0] for problem in said] == [
        "nobody (from voicethere.toml, line 6)",
        "prot (from voicethere.toml, line 4)",
        "port (from --port)",
        "capacity (from voicethere.toml, line 1)",
    ]
    assert "did you mean port?" in said[1]


def test_a_file_keeps_to_its_types(tmp_path: Path) -> None:
    (problem,) = problems(file=file_of(tmp_path, 'port = "8080"\n'))
    assert problem.startswith('port (from voicethere.toml, line 1): "8080" is wrong: Expected int')


@pytest.mark.parametrize(
    ("text", "said"),
    [("port = \n", "at line 1"), ("[sessions\n", "is no TOML"), ("sessions = 1\n", "a table")],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    assert said in problems(file=file_of(tmp_path, text))[0]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert problems(file=tmp_path / "gone.toml") == [
        f"cannot read {tmp_path}/gone.toml: No such file or directory"
    ]


@pytest.mark.parametrize("role", ["control", "sessions", "worker"])
def test_engines_are_shared_both_or_neither(role: str) -> None:
    found = read(role, flags={}, environment=ENGINES, file=None)
    assert found.values.distributed
    for missing, named in (("DATABASE", "database_url"), ("REDIS", "redis_url")):
        half = {name: url for name, url in ENGINES.items() if missing not in name}
        (problem,) = problems(role, environment=half)
        assert problem.startswith(named)
        assert "must share" in problem
        assert "hidden" not in problem


def test_a_runner_needs_no_database() -> None:
    redis = {"VOICETHERE_REDIS_URL": ENGINES["VOICETHERE_REDIS_URL"]}
    assert read("runner", flags={}, environment=redis, file=None).values.distributed


def test_up_is_for_one_machine() -> None:
    assert ["voicethere serve" in problem for problem in problems("up", environment=ENGINES)] == [True, True]


def test_the_ops_endpoint_has_a_port_of_its_own() -> None:
    (problem,) = problems(flags={"port": "9000", "ops_port": "9000"})
    assert "needs one of its own" in problem


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hidden@host/0",
        "redis://me:hid/den@host/0",
        "redis://me:hidden@more@host",
        "postgresql://me@host/db?password=hidden&x=1",
        "postgresql:// :hidden@",
    ],
)
def test_no_password_is_shown(url: str) -> None:
    assert "hid" not in without_passwords(url)
    assert "hid" not in str(shown("redis_url", url))
    for variable in ("REDIS_URL", "DATABASE_URL", "PUBLIC_URL", "OTEL_ENDPOINT", "BUNDLES_URL"):
        found = ""
        try:
            read("sessions", flags={}, environment={f"VOICETHERE_{variable}": url}, file=None)
        except InvalidConfiguration as invalid:
            found = str(invalid)
        assert "hid" not in found


def test_every_setting_is_described_and_used() -> None:
    assert list(described()) == [field.name for field in msgspec.structs.fields(Configuration)]
    for setting in described().values():
        assert setting.setting.words.endswith(".")
        assert set(setting.setting.roles) <= {*ROLES, "up"}
        assert setting.setting.roles


def test_check_prints_what_is_in_force_without_passwords(tmp_path: Path) -> None:
    file = file_of(
        tmp_path,
        'redis_url = "redis://:hidden@queue/0"\ndatabase_url = "postgresql://me:hidden@db/voicethere"\n'
        'ice_servers = [{ urls = "turn:relay:3478", username = "u", credential = "hidden" }]\n'
        "[runner]\ncapacity = 7\n",
    )
    result = CliRunner().invoke(cli, ["serve", "check", f"--config={file}", "--json"])
    assert result.exit_code == 0, result.output
    assert "hidden" not in result.output
    found = json.loads(result.stdout)
    assert list(found) == list(ROLES)
    assert found["runner"]["capacity"] == {"value": 7, "origin": "voicethere.toml, line 5"}
    assert found["worker"]["redis_url"] == {
        "value": "redis://***@queue/0",
        "origin": "voicethere.toml, line 1",
    }
    assert {role: set(keys) for role, keys in found.items()} == {
        role: {setting.key for setting in settings_of(role)} for role in ROLES
    }
    plain = CliRunner().invoke(cli, ["serve", "check", "--role=runner"], env={"VOICETHERE_CONFIG": str(file)})
    assert "capacity = 7  # voicethere.toml, line 5" in plain.stdout
    assert "hidden" not in plain.output


def test_check_refuses_with_every_problem(tmp_path: Path) -> None:
    file = file_of(tmp_path, "capacity = 0\nnonsense = 1\n")
    result = CliRunner().invoke(cli, ["serve", "check", f"--config={file}"])
    assert result.exit_code == 2
    assert "nonsense (from voicethere.toml, line 2): there is no such setting" in result.stderr
    assert "capacity (from voicethere.toml, line 1): 0 is wrong" in result.stderr


def test_a_role_does_not_start_on_a_wrong_configuration(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["serve", "worker", f"--data-dir={tmp_path}/data", "--ops-port=x"])
    assert result.exit_code == 2
    assert "ops_port (from --ops-port)" in result.stderr
    assert not (tmp_path / "data").exists()
