"""`policy test --history`: the verdicts that the live hold would have given."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from startgate.cli import app
from startgate.events import Container, Event, Kubernetes, Mount, Note, Process, timestamp
from startgate.journal.history import Query, Search
from startgate.journal.reader import Journal
from startgate.journal.replay import _Judge, replay
from startgate.policy.rules import Policy, load
from startgate.testing import make_event
from tests.unit.journals import START, lines, lives, write

SHIPPED = Path(__file__).parent.parent.parent / "src/startgate/policy/rules.toml"
SOME = 100


def some_container(number: int, rng: random.Random) -> Container:
    """Return a container as config.json and an engine may make it."""
    sources = ("/", "/etc", "/var/run/docker.sock", "/proc", "/home/x", "/dev/sda", "/srv/\u202e")
    kinds = ("pid", "net", "ipc", "mnt", "user")
    capabilities = ("CAP_SYS_ADMIN", "CAP_CHOWN", "CAP_NET_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_PTRACE")
    unknown = ("image", "mounts", "labels", "image_reference")
    images = ("nginx", "registry.example.com/a:1", "docker.io/library/alpine:3", "")
    return Container(
        id=f"{rng.getrandbits(256):064x}",
        name=rng.choice(("web", "a b", "é", "x" * 300)),
        engine=rng.choice(("docker", "containerd", None)),
        bundle="/run/bundle",
        rootfs=rng.choice(("/run/bundle/rootfs", None)),
        image=rng.choice(images),
        image_reference=rng.choice((*images, None)),
        labels={rng.choice(("app", "batch", "tier")): rng.choice(("job", "true", ""))},
        kubernetes=rng.choice((None, Kubernetes(namespace=rng.choice(("production", "test")), pod="p"))),
        uid=rng.choice((0, 1000)),
        rootless=rng.random() < 0.2,
        args=("/bin/sh", *(str(rng.random()) for _ in range(rng.randrange(3)))),
        user=rng.choice((None, "0:0", "1000:1000")),
        privileged=rng.random() < 0.3,
        capabilities=tuple(rng.sample(capabilities, rng.randrange(5))),
        bounding_capabilities=tuple(rng.sample(capabilities, rng.randrange(5))),
        seccomp=rng.random() < 0.5,
        no_new_privileges=rng.random() < 0.5,
        masked_paths=tuple(rng.sample(("/proc/kcore", "/proc", "/sys/firmware"), rng.randrange(3))),
        host_namespaces=tuple(rng.sample(kinds, rng.randrange(3))),
        mounts=tuple(
            Mount(source, f"/m{at}", rng.choice(("bind", "proc")), ("rbind",), rng.choice((source, None)))
            for at, source in enumerate(rng.sample(sources, rng.randrange(4)))
        ),
        oom_score_adj=rng.choice((None, 0, -999)),
        unknown=tuple(rng.sample(unknown, rng.randrange(2))),
        start_id=f"boot-{number}",
    )


def some_events() -> list[Event]:
    rng, found = random.Random(5), list[Event]()
    for number in range(SOME):
        container = some_container(number, rng)
        for event in (
            replace(make_event("creating"), container=container),
            replace(make_event("created"), container=replace(container, pid=7, hostname="h")),
            replace(
                make_event("exec"),
                container=replace(container, pid=7, hostname="h"),
                process=Process(argv=("sh", str(number % 3)), user=rng.choice(("0:0", None))),
            ),
        ):
            found.append(replace(event, time=timestamp(START + len(found))))
    return found


def verdicts(policy: Policy, event: Event) -> list[tuple[str, str, str]]:
    """Return what the live gate gets: `Policy.decide`, by rule."""
    return [
        (
            rule.name,
            said.action if isinstance(said, Note) else type(said).__name__.lower(),
            said.message or "",
        )
        for rule, words in policy.judge(event)
        for said in words
    ]


@pytest.mark.parametrize("refusing", [False, True])
def test_verdicts_are_those_of_the_live_hold(tmp_path: Path, refusing: bool) -> None:
    """`refusing`: what was refused then is told as `denied`, and judged as what it would have been."""
    rules = tmp_path / "rules.toml"
    rules.write_text(SHIPPED.read_text().replace('action = "warn"', 'action = "deny"', 4))
    policy, events = load([str(rules)]), some_events()
    tmp_path /= "journal"
    live = [verdicts(policy, event) for event in events]
    told = [
        replace(event, type="denied") if refusing and any(kind == "deny" for _, kind, _ in said) else event
        for event, said in zip(events, live, strict=True)
    ]
    write(tmp_path, lines(told))
    with Journal(str(tmp_path)) as journal:
        found = replay(journal, policy, Query())
        judge = _Judge(Search(journal, Query()), policy)
        late = [[(word.rule, word.result, word.message) for word in judge(row)[1]] for row in judge.rows()]
    assert late == live
    assert (found.starts, found.execs) == (SOME, SOME)
    assert found.refused == sum(any(kind == "deny" for _, kind, _ in said) for said in live) > SOME // 4
    assert sum(one.times for one in found.rules) == sum(map(len, live))


def test_the_command(tmp_path: Path) -> None:
    rule = '[[rule]]\nname = "no-web-3"\nmatch = \'container.name == "web-3"\'\naction = "deny"\n'
    (tmp_path / "rules.toml").write_text(rule)
    write(tmp_path / "journal", lines(lives(5)))
    command = [
        "policy",
        "test",
        str(tmp_path / "rules.toml"),
        "--history",
        "--journal",
        str(tmp_path / "journal"),
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "5 starts, 0 execs: 1 would have been refused" in result.output
    assert "no-web-3 creating deny         1 2026-" in result.output
    found = json.loads(CliRunner().invoke(app, [*command, "-o", "json"]).output)
    assert (found["refused"], found["rules"][0]["container"]) == (1, "web-3")
    assert CliRunner().invoke(app, [*command, "--since", "2099-01-01"]).exit_code == 0
