"""What is in force, and how it is exchanged."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from startgate.config.active import Active
from startgate.config.reloader import Reloader
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


def test_hooks_of_before_are_kept_as_long_as_they_run(listeners: Told, config: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    hook = "[[hook]]\non=['creating']\ntimeout=60\ncommand=['sh', '-c', 'touch {}; sleep {}']\n"
    config.write_text(hook.format(begun, 50))
    with Active(listeners, str(config)) as active:
        run = threading.Thread(target=lambda: listeners.call(CREATING))
        run.start()
        assert eventually(begun.exists, PATIENCE)
        for seconds in range(5):
            config.write_text(hook.format(begun, seconds))
            active.load()
        assert len(active._running) == 2
    run.join(PATIENCE)
    assert not run.is_alive(), "it was killed"
    assert len(active._running) == 1


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


def test_a_configmap(listeners: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kubelet makes and changes one: links to a directory, by a link that is exchanged."""
    monkeypatch.setattr("startgate.config.tomlfile._is_read_only_volume", lambda directory: True)
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o777)

    def version(name: str) -> None:
        made = volume / f"..{name}"
        made.mkdir()
        (made / "config.toml").write_text("policy = ['rules.toml']\n")
        (made / "rules.toml").write_text(RULE.format(name))
        (volume / "..data_tmp").symlink_to(made.name)
        (volume / "..data_tmp").rename(volume / "..data")

    version("one")
    for file in ("config.toml", "rules.toml"):
        (volume / file).symlink_to(f"..data/{file}")
    with Active(listeners, str(volume / "config.toml")) as active, Reloader(active):
        listeners.exchanged.acquire(timeout=PATIENCE)
        assert listeners.rule() == "one"
        version("two")
        assert eventually(lambda: listeners.rule() == "two")


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

    logger = logging.getLogger("startgate.config.reloader")
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


# What a worker keeps for the next one


@pytest.fixture
def keep_at(tmp_path: Path) -> str:
    place = tmp_path / "run"
    place.mkdir(mode=0o700)
    return str(place / "in-force")


def rule_of_next(config: Path, keep_at: str) -> str | None:
    """Return the rule that is in force in a further worker."""
    listeners = Told()
    with Active(listeners, str(config), keep_at=keep_at):
        return listeners.rule()


BROKEN = ["[[rule]]\n", "", "no rule", None]


@pytest.mark.parametrize("which", ["rules", "config"])
@pytest.mark.parametrize("text", BROKEN)
def test_a_file_that_is_broken_leaves_what_was_kept(
    text: str | None, which: str, config: Path, rules: Path, keep_at: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert rule_of_next(config, keep_at) == "one"
    if (text, which) == ("", "config"):
        return  # an empty configuration is one
    path = rules if which == "rules" else config
    path.unlink() if text is None else path.write_text(text)
    assert rule_of_next(config, keep_at) == "one"
    assert rule_of_next(config, keep_at) == "one", "it is kept still"
    assert f"{path}:" in caplog.text and "until that is mended, what was last in force stays" in caplog.text


def test_what_is_kept_is_what_was_loaded_last(config: Path, rules: Path, keep_at: str) -> None:
    with Active(Told(), str(config), keep_at=keep_at) as active:
        rules.write_text(RULE.format("two"))
        active.load()
        rules.write_text("broken")
        with pytest.raises(UsageError):
            active.load()
    assert rule_of_next(config, keep_at) == "two"


def test_a_file_that_is_mended_is_loaded(config: Path, rules: Path, keep_at: str) -> None:
    assert rule_of_next(config, keep_at) == "one"
    config.write_text("broken")
    listeners = Told()
    with Active(listeners, str(config), keep_at=keep_at) as active, Reloader(active):
        assert listeners.rule() == "one"
        rules.write_text(RULE.format("mended"))
        config.write_text("policy = ['rules.toml']\n")
        assert eventually(lambda: listeners.rule() == "mended", PATIENCE)


def test_what_a_rule_reads_is_kept_too(config: Path, rules: Path, keep_at: str, tmp_path: Path) -> None:
    seccomp = tmp_path / "seccomp.json"
    seccomp.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    patch = "action = 'patch'\n[rule.patch]\nseccomp = 'seccomp.json'\n"
    rules.write_text(f"[[rule]]\nname = 'p'\nmatch = 'true'\n{patch}{RULE.format('one')}")
    assert rule_of_next(config, keep_at) == "one"
    seccomp.unlink()
    assert rule_of_next(config, keep_at) == "one"


def test_a_program_of_a_hook_that_is_missing(config: Path, rules: Path, keep_at: str, tmp_path: Path) -> None:
    program = tmp_path / "hook"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    hook = f"[[hook]]\non=['creating']\ncommand='{program}'\non_failure='deny'\n"
    config.write_text(hook)
    assert rule_of_next(config, keep_at) is None
    program.unlink()
    listeners = Told()
    with Active(listeners, str(config), keep_at=keep_at):
        deny = listeners.call(CREATING).deny
    assert deny and "No such file" in deny.message


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("{"),
        lambda path: path.write_text("{}"),
        lambda path: path.write_text('{"a": 1}'),
        lambda path: path.chmod(0o666),
        lambda path: os.chown(path, 1000, 0),
        lambda path: path.rename(path.with_name("other")) and path.symlink_to("other"),
        make_fifo,
        lambda path: path.parent.chmod(0o777),
    ],
)
def test_what_only_root_could_keep_is_used(
    spoil: Callable[[Path], object], config: Path, rules: Path, keep_at: str
) -> None:
    assert rule_of_next(config, keep_at) == "one"
    rules.write_text("broken")
    spoil(Path(keep_at))
    with pytest.raises(UsageError, match=r"rules\.toml:1:"):
        rule_of_next(config, keep_at)


def test_only_root_can_read_what_is_kept(config: Path, keep_at: str) -> None:
    rule_of_next(config, keep_at)
    assert Path(keep_at).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in Path(keep_at).parent.iterdir()] == ["in-force"]


def test_without_a_place_nothing_is_kept(config: Path, rules: Path, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    with Active(Told(), str(config)):
        assert set(tmp_path.iterdir()) == before
