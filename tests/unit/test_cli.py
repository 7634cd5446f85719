"""Usage errors: what the command line says before it asks the kernel for anything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from startgate import cli
from startgate.agent import start
from startgate.cli import app, log, main
from startgate.errors import BundleError, KernelUnsupported, UsageError
from startgate.watcher import Watcher


@pytest.fixture(autouse=True)
def _nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watcher, "start", lambda watcher: pytest.fail("started"))
    monkeypatch.setattr(start, "become_keeper", lambda **options: pytest.fail("started"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nope", "No such command 'nope'"),
        ("--nope", "No such option"),
        ("watch --nope", "No such option"),
        ("watch extra", "unexpected extra argument"),
        ("watch --output xml", "'xml' is not one of 'table', 'json'"),
        ("watch -o", "requires an argument"),
        ("watch --count 0", "0 is not in the range x>=1"),
        ("watch --count many", "not a valid integer"),
        ("watch --for -1", "-1.0 is not in the range 0<=x<=100000000"),
        ("watch --for 1e300", "1e+300 is not in the range"),
        ("watch --hold-timeout 0", "0.0 is not in the range 0<x<=3600"),
        ("watch --hold-timeout -2", "-2.0 is not in the range"),
        ("watch --hold-timeout inf", "inf is not in the range"),
        ("watch --hold-timeout soon", "'soon' is not a valid number of seconds"),
        ("watch --type create", "'create' is not one of"),
        ("daemon --hang-limit 0.1", "0.1 is not in the range"),
        ("watch --exec-records magic", "'magic' is not one of"),
        ("ps extra", "unexpected extra argument"),
        ("ps --output xml", "'xml' is not one of 'table', 'json'"),
        ("inspect", "Missing argument 'CONTAINER'"),
        ("demo --count 1", "No such option"),
        ("doctor --output yaml", "'yaml' is not one of 'table', 'json'"),
        ("policy check", "Missing argument 'FILE'"),
        ("policy example extra", "unexpected extra argument"),
    ],
)
def test_usage_errors(arguments: str, said: str) -> None:
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "there is no tracer"),
        ("-- no-such-tracer {pid}", "is it installed"),
        ("-- sh {cgroupid}", "{cgroupid} is no placeholder"),
        ("--ready-when ( sh", "no regular expression"),
        ("--filter nope== sh", "does not compile"),
    ],
)
def test_a_trace_that_makes_no_sense(arguments: str, said: str) -> None:
    result = CliRunner().invoke(app, ["trace", *arguments.split()])
    assert isinstance(result.exception, UsageError) and said in str(result.exception)


def test_alone_it_says_what_to_do_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda name: None)
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    commands = re.findall(r"^  startgate (\w+)", result.stdout, re.MULTILINE)
    assert {"doctor", "demo", "watch", "ps"} <= set(commands) <= set(app.commands)
    assert "use sudo" in result.stdout and "apt-get install runc" in result.stdout


COMMANDS = {
    "--for": ["watch", "trace"],
    "--hold-timeout": ["watch", "daemon", "trace"],
    "--hang-limit": ["daemon"],
    "--runtime": ["watch", "daemon", "trace"],
    "--filter": ["watch", "daemon", "ps", "trace"],
    "--host-root": ["watch", "daemon", "ps", "trace", "inspect x", "doctor"],
    "--policy": ["watch", "daemon"],
    "--config": ["watch", "daemon"],
    "--container": ["policy test /dev/null"],
    "--bundle": ["policy test /dev/null"],
    "--image": ["policy test /dev/null"],
}
USES = [(option, command) for option, commands in COMMANDS.items() for command in commands]


def refusal(command: str, *values: str) -> str:
    """Return what is said of a value that is a usage error."""
    result = CliRunner().invoke(app, [*command.split(), *values])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr


@pytest.mark.parametrize(("option", "command"), USES)
def test_an_empty_value(option: str, command: str) -> None:
    """As where a script's variable is not set: never taken for the default."""
    assert f"Invalid value for '{option}': " in refusal(command, option, "")


@pytest.mark.parametrize("command", ["inspect", "policy check", "policy test", "config check"])
def test_an_empty_argument(command: str) -> None:
    assert "Invalid value for " in refusal(command, "")


@pytest.mark.parametrize(
    ("option", "command"),
    [(option, command) for option, command in USES if option in ("--for", "--hold-timeout", "--hang-limit")],
)
def test_a_time_that_is_no_number(option: str, command: str) -> None:
    assert f"Invalid value for '{option}': nan is no length of time" in refusal(command, option, "nan")


@pytest.mark.parametrize(
    ("option", "command"),
    [use for use in USES if use[0] in ("--host-root", "--policy", "--config", "--bundle")],
)
def test_a_path_that_leads_nowhere(option: str, command: str, tmp_path: Path) -> None:
    path = str(tmp_path / "none")
    said = refusal(command, option, path)
    assert f"Invalid value for '{option}'" in said
    assert f"'{path}' does not exist" in " ".join(said.split())


@pytest.mark.parametrize(
    ("option", "command"), [use for use in USES if use[0] in ("--host-root", "--bundle")]
)
def test_a_file_that_should_be_a_directory(option: str, command: str) -> None:
    said = refusal(command, option, __file__)
    assert f"Directory '{__file__}' is a file" in " ".join(said.split())


@pytest.mark.parametrize(("option", "command"), [use for use in USES if use[0] in ("--policy", "--config")])
def test_a_directory_that_should_be_a_file(option: str, command: str) -> None:
    assert f"Invalid value for '{option}': File '/' is a directory." in refusal(command, option, "/")


@pytest.mark.parametrize("command", ["watch", "daemon"])
def test_a_configuration_that_is_a_dangling_link(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its rules were meant to decide: not watching without them."""
    path = tmp_path / "config.toml"
    path.symlink_to(tmp_path / "none")
    monkeypatch.setattr(cli, "CONFIG", str(path))
    assert run_main(monkeypatch, command) == 2
    assert capsys.readouterr().err == f"startgate: {path}: No such file or directory\n"


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["startgate", *arguments])
    monkeypatch.setattr(log, "configure", lambda level: None)
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("type ==", "startgate: the filter does not compile"),
        ("nope", "startgate: the filter does not compile, at 1:1: unknown name"),
    ],
)
def test_a_filter_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], expression: str, said: str
) -> None:
    assert run_main(monkeypatch, "watch", "--filter", expression) == 2
    output = capsys.readouterr()
    assert output.err.startswith(said)
    assert output.out == ""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KernelUnsupported("no fanotify"), 3, "startgate: no fanotify (startgate doctor tells more)\n"),
        (KernelUnsupported("no BPF", details="R1 invalid"), 3, "(startgate doctor tells more)\nR1 invalid\n"),
        (BundleError("no bundle"), 1, "startgate: no bundle\n"),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    said: str,
) -> None:
    def fail(watcher: Watcher) -> None:
        raise error

    monkeypatch.setattr(Watcher, "start", fail)
    assert run_main(monkeypatch, "watch") == code
    output = capsys.readouterr()
    assert output.err.endswith(said)
    assert output.out == ""


@pytest.mark.parametrize(("closed", "code"), [("2>&-", 2), ("<&- 2>&-", 2), (">&-", 1), (">&- 2>&-", 1)])
def test_what_is_closed_changes_no_exit_code(closed: str, code: int) -> None:
    program = "from startgate.cli import main; main()"
    command = [sys.executable, "-c", program, "policy", "test", "/dev/null"]
    ended = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *command], check=False, timeout=60)
    assert ended.returncode == code


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("command", ["", "watch", "ps", "inspect", "demo", "doctor"])
def test_help(command: str, option: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), option])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


@pytest.mark.parametrize("group", ["", "policy", "config"])
def test_what_a_command_does_is_said_in_full(group: str) -> None:
    _, commands = CliRunner().invoke(app, [*group.split(), "--help"]).stdout.split("Commands:\n")
    assert commands.strip() and "..." not in commands


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert "0.1.0" in result.stdout
