"""Rules that can never match are told of when they are read; none that may match is."""

from __future__ import annotations

from typing import Any

import pytest

from startgate.config import tomlfile
from startgate.policy.rules import compile_rules


def never(match: str, **keys: Any) -> str | None:
    text = f"[[rule]]\nname = 'r'\naction = 'deny'\nmatch = '''{match}'''\n"
    text += "".join(f"{name} = {value!r}\n" for name, value in keys.items())
    (rule,) = compile_rules(tomlfile.parse(text, "rules.toml"))
    return rule.warning


@pytest.mark.parametrize(
    ("match", "why"),
    [
        ("false", "it is always false"),
        (
            'container.mounts.exists(m, m.resolved == "/etc/")',
            "never '/etc/': it may be an absolute path in its",
        ),
        ('container.mounts.exists(m, m.resolved in ["etc", "/a/../b"])', "m.resolved is never 'etc'"),
        ('container.mounts.exists(m, m.resolved.startsWith("etc"))', "startsWith('etc')"),
        ("1 == 2 || size([1]) == 1 && false", "its conditions exclude each other"),
        ("container == null", "it is always false"),
        (
            '"SYS_ADMIN" in container.capabilities',
            "container.capabilities is never 'SYS_ADMIN': it may be CAP_",
        ),
        ('container.bounding_capabilities.exists(c, c == "SYS_ADMIN")', "never 'SYS_ADMIN'"),
        ('container.bounding_capabilities.exists(c, c.startsWith("SYS_"))', "startsWith('SYS_')"),
        (
            'container.host_namespaces.exists(k, k in ["network", "mount"])',
            "never 'network': it may be mnt, net,",
        ),
        ('"network" in container.host_namespaces', "container.host_namespaces is never 'network'"),
        ('container.kubernetes.container_type == "pause"', "never 'pause': it may be sandbox, container"),
        ('type == "stopped"', "type is never 'stopped': it may be creating"),
        ('gate == "exec" && container.privileged', "gate is never 'exec': it may be command"),
        ("process != null", "process is known at exec only, and it is asked at creating"),
        ("container.privileged && !container.privileged", "its conditions exclude each other"),
        ('container.id == "a" && container.id == "b"', "its conditions exclude each other"),
        ('container.id in ["a"] && container.id in ["b", "c"]', "its conditions exclude each other"),
        ("container.id in []", "it is always false"),
        ('container.image == null && container.image == "x"', "its conditions exclude each other"),
        ("!(container.seccomp || !container.seccomp)", "its conditions exclude each other"),
        (
            'container.privileged ? false : container.user == "q" && container.user != "q"',
            "exclude each other",
        ),
        ('container.mounts.exists(m, m.type == "a" && m.type == "b")', "it is always false"),
    ],
)
def test_what_never_matches(match: str, why: str) -> None:
    said = never(match)
    assert said and said.startswith("rules.toml:4:9: rule r: it can never match: ")
    assert why in said


@pytest.mark.parametrize(
    ("match", "keys"),
    [
        ("true", {}),
        ('container.mounts.exists(m, m.resolved == "/etc" || m.resolved == "/")', {}),
        ('container.mounts.exists(m, m.resolved.startsWith("/etc/"))', {}),
        ('container.mounts.exists(m, m.resolved == "")', {}),
        ('container.mounts.exists(m, m.resolved.endsWith("etc"))', {}),
        ('"CAP_SYS_ADMIN" in container.capabilities', {}),
        ('container.host_namespaces.exists(k, k in ["network", "pid"])', {}),
        ('container.bounding_capabilities.exists(c, c.startsWith("CAP_SYS"))', {}),
        ('container.kubernetes.container_type == ""', {}),
        ('container.image == null && container.image == ""', {}),
        ("process != null", {"on": ["exec"]}),
        ('type == "exec"', {"on": ["exec", "creating"]}),
        ('gate in ["pidfile", "start"]', {"on": ["created"]}),
        ('container.id == "a" || container.id == "b"', {}),
        ('container.id == "a" ? container.seccomp : !container.seccomp', {}),
        ('container.mounts.all(m, m.type == "a" && m.type == "b")', {}),
        ('container.mounts.exists(m, m.type == "a") && container.mounts.exists(m, m.type == "b")', {}),
        ('["a", "b"].exists(x, x == container.id)', {}),
        ('container.mounts.exists_one(m, m.type == "a")', {}),
        ('container.args.exists(a, container.args.exists(b, a != b && b == "x"))', {}),
        (" && ".join(f'container.id != "{n}"' for n in range(20)), {}),
    ],
)
def test_what_may_match(match: str, keys: dict[str, Any]) -> None:
    assert never(match, **keys) is None


@pytest.mark.parametrize(
    "match",
    [
        'container.user != "0:0" || container.user != "1:1"',
        "container.seccomp || !container.seccomp",
        '!("SYS_ADMIN" in container.capabilities)',
    ],
)
def test_what_always_matches(match: str) -> None:
    assert never(match) == "rules.toml:4:9: rule r: it always matches, whatever the container is"
