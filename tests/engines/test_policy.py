"""The shipped rules and patches at real engines: what their users see, and what is left."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from startgate import Event, Patch
from startgate.config import tomlfile
from startgate.policy.rules import Policy, compile_rules
from tests.engines.engine import DockerLike, leftovers
from tests.kernel.support import Watched, eventually, types, watch_events

USER = ("--user", "1234:1234")


def shipped(name: str, *edits: tuple[str, str]) -> Policy:
    """Return one of the shipped rules, made to deny."""
    text = files("startgate.policy").joinpath("rules.toml").read_text()
    tables = re.split(r"(?m)^(?=\[\[rule\]\])", text)
    (table,) = [each for each in tables if f'name = "{name}"' in each]
    table = re.sub(r'(?m)^action = "(warn|audit)"', 'action = "deny"', table)
    for old, new in edits:
        assert old in table
        table = table.replace(old, new)
    return Policy(compile_rules(tomlfile.parse(table, "rules.toml")))


@contextmanager
def judging(policy: Policy, **options: Any) -> Iterator[Watched]:
    with watch_events(hold_timeout=20, **options) as watched:
        watched.watcher.replace((), policy.registrations())
        yield watched
    assert [e.reason for e in watched.events if e.type == "lost"] == []


def of(watched: Watched, name: str) -> list[str]:
    return types([e for e in watched.events if e.container and e.container.name == name])


def left_of(engine: DockerLike, name: str) -> list[str]:
    """Return the processes, mounts and cgroups that have the container's id in their names."""
    id, cgroup = engine.find(name).id, str(vars(engine)["cgroup"])
    return [each for each in leftovers(engine.directory, cgroup) if id in each] + cgroups_of(id)


def cgroups_of(container: str) -> list[str]:
    """Return the cgroups that have the container's id in their names; others come and go meanwhile."""
    walk = os.walk("/sys/fs/cgroup")
    return [os.path.join(top, each) for top, below, _ in walk for each in below if container in each]


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is mounted into containers: a socket's name, a link to it, a directory."""
    directory = tmp_path_factory.mktemp("places")
    (directory / "docker.sock").touch()
    (directory / "innocent").symlink_to(directory / "docker.sock")
    (directory / "data").mkdir()
    return directory


# rule: what is denied, and what is not
CASES: list[tuple[str, Sequence[str], Sequence[str]]] = [
    ("no-privileged", ("--privileged",), ()),
    ("no-engine-socket", ("-v", "PLACES/docker.sock:/s"), ("-v", "PLACES/data:/data")),
    ("no-engine-socket", ("-v", "PLACES/innocent:/s"), ()),
    ("no-engine-socket", ("-v", "/run:/host-run"), ()),
    ("no-host-root", ("-v", "/:/host:ro"), ("-v", "PLACES/data:/data")),
    ("no-host-root", ("-v", "/proc:/host-proc:ro"), ()),
    ("no-host-namespaces", ("--pid", "host"), ()),
    ("no-host-namespaces", ("--ipc", "host"), ()),
    ("no-host-namespaces", ("--network", "host"), ()),
    ("no-added-capabilities", ("--cap-add", "NET_ADMIN"), ("--cap-drop", "ALL")),
    ("no-dangerous-capabilities", ("--cap-add", "SYS_ADMIN"), ()),
    ("no-dangerous-capabilities", ("--cap-add", "SYS_PTRACE"), ()),
    ("no-dangerous-capabilities", ("--cap-add", "SYS_MODULE"), ()),
    ("seccomp-required", ("--security-opt", "seccomp=unconfined"), ()),
    ("no-root-user", (), USER),
    ("no-writable-host-path", ("-v", "PLACES/data:/data"), ("-v", "PLACES/data:/data:ro")),
    ("no-host-secrets", ("-v", "/etc/shadow:/shadow:ro"), ()),
    ("no-privileged", ("--cap-add", "ALL", "--security-opt", "seccomp=unconfined"), ()),
    ("no-host-devices", ("--device", "/dev/fuse"), ()),
]


@pytest.mark.parametrize(
    ("rule", "bad", "good"), CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)]
)
def test_a_shipped_rule(
    rule: str, bad: Sequence[str], good: Sequence[str], engine: DockerLike, name: str, places: Path
) -> None:
    """Denied with the rule's message in the engine's own error; nothing more is left than of any
    start that fails. An ordinary container goes on."""
    given, ordinary = ([word.replace("PLACES", str(places)) for word in words] for words in (bad, good))
    fails, runs = f"{name}-fails", f"{name}-runs"
    with judging(shipped(rule)) as watched:
        denied = engine.run(name, "/bin/true", given=given)
        event = next(e for e in watched.wait(lambda events: "denied" in types(events)) if e.type == "denied")
        allowed = engine.run(runs, "/bin/true", given=ordinary)
        assert allowed.returncode == 0, allowed.stderr
    assert denied.returncode in (125, 126, 127), denied
    assert event.container and event.container.name == name and event.reason
    assert f"startgate: denied by rule {rule}: {event.reason.message}" in denied.stderr.replace('\\"', '"')
    assert of(watched, name) == ["denied"]
    engine.run(fails, "/no/such/program", given=given)
    assert eventually(lambda: left_of(engine, name) == left_of(engine, fails) == []), left_of(engine, name)
    assert engine.inspect(name)[0]["State"]["Status"] == engine.inspect(fails)[0]["State"]["Status"]
    engine("rm", name, fails, runs)


def test_registries(engine: DockerLike, name: str) -> None:
    """Docker takes an image that was imported as `bb` for docker.io/library/bb."""
    strict = ('"docker.io/library/", ', "")
    with judging(shipped("allowed-registries", strict)) as watched:
        denied = engine.run(name, "/bin/true")
    assert "is from no registry that is allowed" in denied.stderr
    event = next(e for e in watched.events if e.type == "denied")
    assert event.container and event.container.image_reference
    own = f'"{event.container.image_reference}"'
    allowed = shipped("allowed-registries", strict, ('"registry.example.com/"', own))
    with judging(allowed):
        assert engine.run(f"{name}-2", "/bin/true").returncode == 0
    engine("rm", name, f"{name}-2")


def test_an_exec(engine: DockerLike, name: str) -> None:
    """The container's record decides on what is executed in it; the container goes on."""
    match = 'container.kubernetes.namespace == "production" && process.tty'
    policy = shipped(
        "no-exec-in-production", (match, f'container.name == "{name}" && process.argv[0] == "id"')
    )
    with judging(policy):
        engine.run(name, "sleep", "1000", given=("-d",), check=True)
        denied = engine("exec", name, "id", check=False)
        assert denied.returncode != 0 and "uid=" not in denied.stdout
        assert (
            "denied by rule no-exec-in-production: exec into pods of production: id"
            in denied.stdout + denied.stderr
        )
        assert engine("exec", name, "echo", "hello").stdout == "hello\n"
        assert engine.find(name).running
        engine("rm", "-f", name)


def test_hardened_as_seen_from_inside(engine: DockerLike, name: str) -> None:
    """No capability, a read-only root: for what is patched, and after a restart; not for others."""
    script = "cat /proc/self/status; echo x >/file && echo writable; echo job=$JOB; exit 0"

    job = f"{name}-job"

    def harden(event: Event) -> Patch | None:
        if not event.container or event.container.name != job:
            return None
        return Patch(
            drop_capabilities=("ALL",),
            read_only_rootfs=True,
            no_new_privileges=True,
            add_env={"JOB": "yes"},
            rule="harden",
        )

    with watch_events({"creating": harden}, hold_timeout=20) as watched:
        first = engine.run(job, "/bin/sh", "-c", script)
        other = engine.run(name, "/bin/sh", "-c", script)
        engine("start", "-a", job)
        watched.wait(lambda events: len([e for e in events if e.type == "stopped"]) == 3)
    again = engine.output(job)[len(first.stdout) :]
    for text in (first.stdout, again):
        assert text.count("0000000000000000") >= 5 and "CapBnd:\t0000000000000000" in text
        assert "NoNewPrivs:\t1" in text and "job=yes" in text and "writable" not in text
    assert "CapBnd:\t0000000000000000" not in other.stdout and "writable" in other.stdout
    created = [e for e in watched.events if e.type == "creating" and e.container and e.container.name == job]
    assert [[note.action for note in e.policy] for e in created] == [["patch"], ["patch"]]
    assert all(e.container and e.container.read_only_rootfs and e.policy[0].patch for e in created)
    engine("rm", job, name)


def test_the_shipped_patch(docker: DockerLike, name: str) -> None:
    """By a label, which Docker's files tell."""
    with judging(shipped("harden-batch-jobs")):
        job = docker.run(name, "cat", "/proc/self/status", given=("--label", "com.example.job=1"))
        other = docker.run(f"{name}-other", "cat", "/proc/self/status")
    assert "CapBnd:\t0000000000000000" in job.stdout and "NoNewPrivs:\t1" in job.stdout
    assert "CapBnd:\t0000000000000000" not in other.stdout
    docker("rm", name, f"{name}-other")


def test_what_is_known_when_created_only(engine: DockerLike, name: str) -> None:
    """Denied where the pid file is read: its init is killed, and its program never runs."""
    text = '[[rule]]\nname = "late"\nmatch = "container.pid > 1"\naction = "deny"\nmessage = "never"\n'
    with judging(Policy(compile_rules(tomlfile.parse(text, "rules.toml")))) as watched:
        done = engine.run(name, "/bin/sh", "-c", "echo ran")
        watched.wait(lambda events: "stopped" in types(events))
    assert done.returncode != 0 and "ran" not in done.stdout
    assert of(watched, name) == ["creating", "denied", "stopped"]
    assert eventually(lambda: left_of(engine, name) == []), left_of(engine, name)
    engine("rm", name)
