"""`startgate install` and `uninstall`: what they put in place, and what they leave alone."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from startgate.cli import app, placing
from startgate.cli.manpage import page
from startgate.config import settings
from startgate.errors import StartgateError
from startgate.install import Placed, Placement

UNIT = "usr/lib/systemd/system/startgate.service"
CONFIG = "etc/startgate/config.toml"
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def invoke(*words: str, code: int = 0) -> str:
        where = ["--root", str(tmp_path), "--prefix", "/usr"]
        done = CliRunner().invoke(app, [words[0], *where, *words[1:]])
        assert done.exit_code == code, done.output
        return done.output

    return invoke


@pytest.fixture
def installed(run: Run, tmp_path: Path) -> Path:
    run("install", "--command", "/opt/startgate/bin/startgate")
    return tmp_path


def paths(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_all_is_put_in_place(installed: Path) -> None:
    assert paths(installed) >= {
        UNIT,
        CONFIG,
        "usr/lib/systemd/system/startgate-agent.service",
        "etc/startgate/rules.toml",
        "usr/lib/sysusers.d/startgate.conf",
        "usr/share/bash-completion/completions/startgate",
        "usr/share/zsh/site-functions/_startgate",
        "usr/share/fish/vendor_completions.d/startgate.fish",
        "usr/share/man/man1/startgate.1",
    }
    assert os.readlink(installed / "usr/bin/startgate") == "/opt/startgate/bin/startgate"
    assert "\nExecStart=/opt/startgate/bin/startgate daemon " in (installed / UNIT).read_text()
    for path, mode in ((CONFIG, 0o600), ("etc/startgate", 0o700), (UNIT, 0o644), ("usr/lib", 0o755)):
        assert stat.S_IMODE((installed / path).stat().st_mode) == mode, path


def test_the_configuration_changes_nothing_until_somebody_edits_it(installed: Path) -> None:
    assert settings.load(str(installed / CONFIG)) == settings.Settings()


def test_the_examples_in_it_are_right(installed: Path) -> None:
    file = installed / CONFIG
    text = "".join(
        line.removeprefix("#") + "\n" for line in file.read_text().splitlines() if not line.startswith("# ")
    )
    file.write_text(text)
    loaded = settings.load(str(file))
    assert loaded.policy == (str(installed / "etc/startgate/rules.toml"),)
    assert [hook.name for hook in loaded.hook] == ["seen"]


def test_a_dry_run_writes_nothing(run: Run, tmp_path: Path) -> None:
    told = run("install", "--dry-run")
    assert f"would write /{UNIT}\n" in told
    assert paths(tmp_path) == set()


def test_a_second_time_changes_nothing(run: Run, installed: Path) -> None:
    before = {path: (installed / path).lstat().st_mtime_ns for path in paths(installed) if "." in path}
    told = run("install", "--command", "/opt/startgate/bin/startgate")
    assert {line.split()[0] for line in told.splitlines()} == {"unchanged"}
    before.pop("usr/share/startgate/installed.json")
    assert before == {path: (installed / path).lstat().st_mtime_ns for path in before}


def test_a_new_version_replaces_what_nobody_changed(run: Run, installed: Path) -> None:
    (installed / CONFIG).write_text("hold_timeout = 1\n")
    told = run("install", "--command", "/usr/bin/startgate").splitlines()
    assert f"write /{UNIT} (a new version)" in told
    assert f"keep /{CONFIG} (it was changed since it was installed)" in told
    assert "remove /usr/bin/startgate" in told
    assert (installed / CONFIG).read_text() == "hold_timeout = 1\n"
    assert "ExecStart=/usr/bin/startgate daemon" in (installed / UNIT).read_text()


def test_what_was_there_before_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / CONFIG).parent.mkdir(parents=True)
    (tmp_path / CONFIG).write_text("hold_timeout = 1\n")
    assert f"keep /{CONFIG} (it was there before)" in run("install")
    run("uninstall", "--purge")
    assert (tmp_path / CONFIG).read_text() == "hold_timeout = 1\n"
    assert paths(tmp_path) == {"etc", "etc/startgate", CONFIG}


def test_uninstall_takes_all_away(run: Run, installed: Path) -> None:
    told = run("uninstall", "--dry-run")
    assert f"would remove /{UNIT}\n" in told and (installed / UNIT).exists()
    run("uninstall")
    assert paths(installed) == set()


def test_a_changed_configuration_is_kept_and_told(run: Run, installed: Path) -> None:
    (installed / CONFIG).write_text("hold_timeout = 1\n")
    assert f"keep /{CONFIG} (it was changed since it was installed)" in run("uninstall")
    assert paths(installed) == {"etc", "etc/startgate", CONFIG}


def test_purge_removes_it_and_tells(run: Run, installed: Path) -> None:
    (installed / CONFIG).write_text("hold_timeout = 1\n")
    assert f"remove /{CONFIG} (it was changed since it was installed)" in run("uninstall", "--purge")
    assert paths(installed) == set()


def test_others_files_stay_in_its_directories(run: Run, installed: Path) -> None:
    (installed / "etc/startgate/mine.toml").write_text("")
    run("uninstall")
    assert paths(installed) == {"etc", "etc/startgate", "etc/startgate/mine.toml"}


def test_nothing_was_installed(run: Run, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["uninstall", "--root", str(tmp_path)])
    assert isinstance(done.exception, StartgateError) and "nothing was installed" in str(done.exception)


def test_a_record_that_is_broken_is_told(installed: Path) -> None:
    (installed / "usr/share/startgate/installed.json").write_text("{")
    with pytest.raises(StartgateError, match=r"installed\.json can't be read"):
        Placement(str(installed), "/usr/share/startgate/installed.json")


def test_a_directory_in_the_place_of_a_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    place = Placement(str(tmp_path), "/record")
    assert [(step.action, step.why) for step in place.steps([Placed("/a/b", b"")])] == [
        ("keep", "it was there before")
    ]


def test_the_units_command_is_this_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(StartgateError, match="--command says which"):
        placing._this_program()


@pytest.mark.parametrize(
    ("shell", "name"), [("bash", "completions/startgate"), ("zsh", "_startgate"), ("fish", "startgate.fish")]
)
def test_completions_are_what_the_shells_read(installed: Path, shell: str, name: str) -> None:
    (file,) = (path for path in installed.rglob("*startgate*") if str(path).endswith(name))
    assert f"_STARTGATE_COMPLETE={shell}_complete" in file.read_text()
    if found := shutil.which(shell):
        subprocess.run([found, "-n", str(file)], check=True)


def test_the_manual_page_has_all_commands(installed: Path) -> None:
    text = (installed / "usr/share/man/man1/startgate.1").read_text()
    for name in app.commands:
        assert f"\n.SS startgate {name} " in text
    assert "\\fB\\-\\-hang\\-limit SECONDS\\fR" in text
    if groff := shutil.which("groff"):
        done = subprocess.run(
            [groff, "-man", "-ww", "-z"], input=text, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""


def test_no_text_is_a_request_of_roff() -> None:
    @click.group()
    def group() -> None:
        """See it."""

    @group.command(help=".so /etc/shadow\n\n'quoted \\ -x")
    def odd() -> None: ...

    lines = page(group, "1").splitlines()
    assert "\\&.so /etc/shadow" in lines and "\\&'quoted \\e \\-x" in lines
