"""What is in force, and how it is exchanged."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from startgate.active import Active, Reloader
from startgate.errors import UsageError
from startgate.hooks import HookConfig
from startgate.listeners import Listeners
from startgate.testing import make_event
from tests.kernel.support import eventually

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root has files that are root's")

PATIENCE = 10.0
CREATING = make_event("creating", privileged=True, rootfs="/r")
RULE = "[[rule]]\nname = '{}'\nmatch = 'container.privileged'\naction = 'deny'\n"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(RULE.format("one"))
    path.chmod(0o644)
    return path


@pytest.fixture
def config(tmp_path: Path, rules: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text("policy = ['rules.toml']\n")
    path.chmod(0o644)
    return path


class Told(Listeners):
    """Listeners that tell when their callbacks were exchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.exchanged = threading.Semaphore(0)

    def replace(self, old: object, new: object) -> None:
        super().replace(old, new)  # type: ignore[arg-type]
        self.exchanged.release()

    def rule(self) -> str | None:
        deny = self.call(CREATING).deny
        return deny.rule if deny else None


@pytest.fixture
def listeners() -> Told:
    return Told()


@pytest.fixture
def active(listeners: Told, config: Path) -> Iterator[Active]:
    with Active(listeners, str(config)) as active:
        assert listeners.exchanged.acquire(timeout=0)
        yield active


def test_rules_and_hooks_of_file_and_command_line(
    listeners: Told, config: Path, rules: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more.toml"
    more.write_text(RULE.format("first"))
    config.write_text(config.read_text() + "[[hook]]\non=['stopped']\ncommand='true'\n")
    hooks = [HookConfig(on=("created",), command="true")]
    with Active(listeners, str(config), policy=[str(more)], hooks=hooks) as active:
        assert listeners.rule() == "first"
        assert active.files == [str(config), str(more), str(rules)]
        assert listeners.wants("stopped") and listeners.wants("created") and listeners.wants("creating")


def test_nothing_is_in_force_without_a_file(listeners: Told) -> None:
    with Active(listeners) as active:
        assert active.files == []
        assert not listeners.wants("creating")


def test_a_load_exchanges_and_keeps_other_callbacks(listeners: Told, active: Active, rules: Path) -> None:
    listeners.on("stopped", print)
    rules.write_text(RULE.format("two"))
    active.load()
    assert listeners.rule() == "two"
    assert listeners.wants("stopped")


def test_a_broken_file_changes_nothing(listeners: Told, active: Active, rules: Path) -> None:
    rules.write_text("[[rule]]\nname = 'x'\nmatch = 'container.'\naction = 'deny'\n")
    with pytest.raises(UsageError, match=r"rules\.toml:3:"):
        active.load()
    assert listeners.rule() == "one"


def test_a_file_that_is_being_written_is_not_taken_for_no_rules(
    listeners: Told, active: Active, rules: Path
) -> None:
    rules.write_text("")
    with pytest.raises(UsageError, match="it is empty"):
        active.load()
    assert listeners.rule() == "one"


# While it runs


def test_a_change_of_a_rule_file_is_loaded(listeners: Told, active: Active, rules: Path) -> None:
    with Reloader(active):
        rules.write_text(RULE.format("two"))
        assert eventually(lambda: listeners.rule() == "two", PATIENCE)


def test_an_editor_that_renames(listeners: Told, active: Active, rules: Path) -> None:
    with Reloader(active):
        new = rules.with_suffix(".new")
        new.write_text(RULE.format("renamed"))
        new.rename(rules)
        assert listeners.exchanged.acquire(timeout=PATIENCE)
        assert listeners.rule() == "renamed"


def test_a_file_that_the_new_configuration_names_is_followed(
    listeners: Told, active: Active, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    other = tmp_path / "sub/other.toml"
    other.write_text(RULE.format("other"))
    with Reloader(active):
        config.write_text("policy = ['sub/other.toml']\n")
        assert eventually(lambda: listeners.rule() == "other", PATIENCE)
        other.write_text(RULE.format("changed"))  # at once: the new directory may not be watched yet
        assert eventually(lambda: listeners.rule() == "changed", PATIENCE)


def test_it_is_loaded_when_somebody_asks(listeners: Told, active: Active) -> None:
    with Reloader(active) as reloader:
        reloader.reload()
        assert listeners.exchanged.acquire(timeout=PATIENCE)


def test_a_broken_file_keeps_the_old_and_says_so(
    listeners: Told, active: Active, rules: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = threading.Event()

    class Hear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.set()

    logger = logging.getLogger("startgate.active")
    handler = Hear()
    logger.addHandler(handler)
    try:
        with Reloader(active):
            rules.write_text("[[rule]]\n")
            assert said.wait(PATIENCE)
            assert listeners.rule() == "one"
            rules.write_text(RULE.format("mended"))
            assert eventually(lambda: listeners.rule() == "mended", PATIENCE)
    finally:
        logger.removeHandler(handler)
    assert "not reloaded, what was in force before stays: " in caplog.text


def test_another_file_in_the_directory_loads_nothing(listeners: Told, active: Active, tmp_path: Path) -> None:
    with Reloader(active) as reloader:
        (tmp_path / "unrelated").write_text("x")
        reloader.reload()
        assert listeners.exchanged.acquire(timeout=PATIENCE)
        assert not listeners.exchanged.acquire(timeout=0)


def test_it_ends_at_once(active: Active) -> None:
    reloader = Reloader(active)
    reloader.start()
    reloader.close()
