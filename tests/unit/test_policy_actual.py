"""Rules, filters and hooks that ask for what the kernel says of a container."""

from __future__ import annotations

import pytest

from startgate.cli.watch import Watch
from startgate.events import Actual, Deny, HostMount, Note
from startgate.filters import compile_filter
from startgate.hooks import HookConfig, Hooks
from startgate.testing import make_event
from startgate.watcher import Watcher
from tests.unit.test_policy_rules import policy, rule

HOST_ROOT = 'container.actual.host_mounts.exists(m, m.host_path == "/etc" || m.host_path == null)'
ETC = Actual(host_mounts=(HostMount("/host", "/etc", "ext4"),))


def test_it_is_asked_at_created() -> None:
    rules = policy(rule(HOST_ROOT))
    assert rules.rules[0].on == ("created",)
    assert [registration.actual for registration in rules.registrations()] == [True]
    refused = rules.decide(make_event("created", rootfs="/r", actual=ETC))
    assert [type(word) for word in refused] == [Deny]
    allowed = Actual(host_mounts=(HostMount("/host", "/srv"),))
    assert rules.decide(make_event("created", rootfs="/r", actual=allowed)) == []
    nameless = Actual(host_mounts=(HostMount("/host"),))
    assert rules.decide(make_event("created", rootfs="/r", actual=nameless)) != []


def test_others_have_nothing_read_for_them() -> None:
    assert [r.actual for r in policy(rule("container.pid == 1")).registrations()] == [False]


@pytest.mark.parametrize("part", ["message_expression", "exception"])
def test_it_is_read_for_every_expression(part: str) -> None:
    text = rule("container.pid != 0", "warn", on=["created"])
    more = {
        "message_expression": "message_expression = 'container.actual.lsm'",
        "exception": f"[[exception]]\nname = 'e'\nmatch = '''{HOST_ROOT}'''",
    }[part]
    assert [r.actual for r in policy(f"{text}\n{more}").registrations()] == [True]


def test_what_was_not_read_is_undecided() -> None:
    """Its init was gone, or its process in the way: that is no proof of anything."""
    said = policy(rule(HOST_ROOT)).decide(make_event("created", rootfs="/r"))
    assert [type(word) for word in said] == [Note, Deny]
    assert isinstance(said[0], Note)
    assert said[0].message == "rule r could not be decided: container.actual was not read"


@pytest.mark.parametrize("name", ["actual.mounts", "actual.host_mounts", "actual"])
def test_what_is_cut_is_undecided(name: str) -> None:
    event = make_event("created", rootfs="/r", actual=Actual(), truncated=(name,))
    assert any(isinstance(word, Deny) for word in policy(rule(HOST_ROOT)).decide(event))


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ('"CAP_SYS_ADMIN" in container.actual.bounding_capabilities', False),
        ('"mounts" in container.actual.differs', True),
        ('container.actual.seccomp == "filter" && container.actual.uid == 1000', True),
        ("container.actual.seccomp != 'disabled' && container.actual.lsm == ''", True),
        ("container.actual.no_new_privileges", True),
        ("container.actual.uid_map.exists(m, m.host == 0)", False),
        ('container.actual.mounts.all(m, m.propagation == "private")', True),
        ("container.actual.read_only_rootfs == null", True),
    ],
)
def test_its_fields(expression: str, matches: bool) -> None:
    actual = Actual(uid=1000, no_new_privileges=True, seccomp="filter", differs=("mounts",))
    event = make_event("created", rootfs="/r", actual=actual)
    assert bool(policy(rule(expression)).decide(event)) is matches


def test_words_that_it_never_holds() -> None:
    rules = policy(rule('"caps" in container.actual.differs'))
    assert rules.rules[0].warning
    assert "never match" in rules.rules[0].warning


def test_a_filter() -> None:
    assert compile_filter(HOST_ROOT).asks_for_actual
    assert not compile_filter("container.pid == 1").asks_for_actual
    watcher = Watcher()
    assert not watcher._listeners.want_actual
    Watch(watcher, "json", keep="container.pid == 1")
    assert not watcher._listeners.want_actual
    Watch(watcher, "json", keep=HOST_ROOT)
    assert watcher._listeners.want_actual


@pytest.mark.parametrize(("match", "read"), [(HOST_ROOT, True), ("container.pid == 1", False), (None, False)])
def test_a_hook(match: str | None, read: bool) -> None:
    with Hooks([HookConfig(on=("created",), command="true", match=match)]) as hooks:
        assert [registration.actual for registration in hooks.registrations()] == [read]


def test_the_watchers_switch() -> None:
    assert Watcher(actual=True)._listeners.want_actual
    assert not Watcher()._listeners.want_actual
