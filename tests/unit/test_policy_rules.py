"""The rules: read, compiled, judged. Whatever they meet, there is a verdict and no exception."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.config import tomlfile
from startgate.errors import UsageError
from startgate.events import Container, Deny, Event, Kubernetes, Mount, Namespaces, Note, Process
from startgate.listeners import Listeners
from startgate.policy.patch import Patch
from startgate.policy.rules import Policy, RuleEvent, Said, compile_rules, load
from startgate.testing import make_event
from tests.unit.fakes import only_root


def policy(text: str) -> Policy:
    return Policy(compile_rules(tomlfile.parse(text, "rules.toml")))


def rule(match: str, action: str = "deny", name: str = "r", **more: Any) -> str:
    lines = ["[[rule]]", f"name = '{name}'", f"match = '''{match}'''", f"action = '{action}'"]
    for key, value in more.items():
        lines.append(f"{key} = {str(value).lower()}" if isinstance(value, bool) else f"{key} = {value!r}")
    return "\n".join([*lines, "[rule.patch]\nno_new_privileges = true\n" if action == "patch" else ""])


def creating(**container: Any) -> Event:
    return make_event("creating", **({"pid": None, "rootfs": "/b/rootfs", "bundle": "/b"} | container))


def error(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        policy(text)
    return str(caught.value)


def test_an_expression_that_is_too_long() -> None:
    """The library's parser recurses, to the end of the stack."""
    assert "longer than 4096 characters" in error(rule("container" + ".b" * 20_000))


# What is said


def test_each_action() -> None:
    text = "\n".join(
        rule("true", action, action, message=f"m {action}") for action in ("audit", "warn", "patch")
    )
    assert policy(text).decide(creating()) == [
        Note("m audit", "audit", "audit"),
        Note("m warn", "warn", "warn"),
        Patch(no_new_privileges=True, rule="patch", message="m patch"),
    ]
    assert policy(rule("true", message="no")).decide(creating()) == [Deny("no", "r")]


UNKNOWN = {"engine": "docker", "unknown": ("image", "labels")}


@pytest.mark.parametrize(
    "match",
    [
        "container.image == 'bad'",
        "container.image != 'good'",
        "container.image.startsWith('bad')",
        "'bad' in container.labels",
        "has(container.labels.bad)",
        "container.labels.all(key, key != 'good')",
        "container.image == null",
        "has(container.image) && container.image == 'bad'",
        "container.privileged || container.image == 'bad'",
    ],
)
def test_what_the_engine_knows_and_we_do_not_decides_nothing(match: str) -> None:
    """An image that can't be found out is not an image without a name."""
    said = policy(rule(match)).decide(creating(**UNKNOWN))
    assert isinstance(said[-1], Deny) and "could not be decided" in said[-1].message
    assert "is not known" in said[-1].message
    known = creating(engine="docker", image="good", labels={"good": ""})
    assert policy(rule(match)).decide(known) == []


def test_what_is_unknown_does_not_matter_where_the_rest_decides() -> None:
    match = "container.engine == 'podman' && container.image == 'bad'"
    assert policy(rule(match)).decide(creating(**UNKNOWN)) == []


def test_what_does_not_match_says_nothing() -> None:
    rules = policy(rule("container.privileged"))
    assert rules.decide(creating()) == []
    assert rules.decide(creating(privileged=True)) == [Deny("r", "r")]


def test_the_first_deny_wins_and_all_warnings_are_recorded() -> None:
    text = [
        rule("true", "warn", "w1"),
        rule("true", "deny", "d1", message="first"),
        rule("true", "deny", "d2"),
        rule("true", "patch", "p"),
        rule("true", "warn", "w2"),
        rule("true", "audit", "a"),
    ]
    said = policy("\n".join(text)).decide(creating())
    assert [word.rule for word in said] == ["w1", "d1", "w2", "a"]
    assert [word for word in said if isinstance(word, Deny)] == [Deny("first", "d1")]


def test_a_message_may_be_an_expression() -> None:
    text = rule(
        "true",
        message_expression='"user " + container.user + " adds " + container.capabilities.join(", ")',
    )
    said = policy(text).decide(creating(user="0:0", capabilities=("CAP_A", "CAP_B")))
    assert said == [Deny("user 0:0 adds CAP_A, CAP_B", "r")]


def test_a_message_that_can_not_be_made_changes_no_verdict() -> None:
    text = rule("true", message_expression='"by " + container.labels.team')
    (said,) = policy(text).decide(creating())
    assert isinstance(said, Deny)
    assert said.message == 'r (its message could not be made: there is no "team")'


# At which event


@pytest.mark.parametrize(
    ("match", "on"),
    [
        ("container.privileged", ("creating",)),
        ("true", ("creating",)),
        ('container.labels["pid"] == "x"', ("creating",)),
        ('"container.pid" == container.id', ("creating",)),
        ("container.pid > 1", ("created",)),
        ("container.namespaces.net == 5 && container.privileged", ("created",)),
        ('container.cgroup.path.startsWith("/")', ("created",)),
        ('process.argv[0] == "sh"', ("exec",)),
        ("process.tty && container.pid > 1", ("exec",)),
    ],
)
def test_what_a_rule_asks_for_decides_when_it_is_asked(match: str, on: tuple[str, ...]) -> None:
    (compiled,) = policy(rule(match)).rules
    assert compiled.on == on
    assert [each.event_type for each in policy(rule(match)).registrations()] == list(on)


def test_a_rule_may_say_when_it_is_asked() -> None:
    text = rule("container.privileged", on=["creating", "exec"])
    assert [each.event_type for each in policy(text).registrations()] == ["creating", "exec"]
    assert policy(text).decide(make_event("created", privileged=True)) == []


def test_an_exec_rule() -> None:
    rules = policy(rule('container.kubernetes != null && process.argv.exists(a, a == "sh")'))
    pod = Container(id="c", rootfs="/r", kubernetes=Kubernetes(namespace="production"))
    event = Event(type="exec", gate="exec", container=pod, process=Process(argv=("/bin/busybox", "sh")))
    assert rules.decide(event) == [Deny("r", "r")]


def test_fail_closed_is_the_registrations() -> None:
    text = rule("container.privileged", fail_closed=True) + "\n" + rule("process.tty", "warn", "w")
    assert [(each.event_type, each.fail_closed) for each in policy(text).registrations()] == [
        ("creating", True),
        ("exec", False),
    ]


# What can't be decided


@pytest.mark.parametrize(
    ("match", "why"),
    [
        ('container.labels["x"] == "y"', 'there is no "x"'),
        ('container.labels.x == "y"', 'there is no "x"'),
        ('container.mounts[7].source == "x"', "there is no item 7"),
        ("1 / container.mounts.size() == 1", "divide by zero"),
        ("container.uid < 1000", "what < is asked of is not known"),
        ('container.args.all(a, a == "")', "its loops take more than 10000 steps"),
    ],
)
@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_a_rule_that_fails_on_a_container(match: str, why: str, on_error: str) -> None:
    said = policy(rule(match, on_error=on_error)).decide(creating(args=("",) * 10_001))
    message = f"rule r could not be decided: {why}"
    assert said == [Note(message, "r", "error"), *([Deny(message, "r")] if on_error == "deny" else [])]


@pytest.mark.parametrize(
    ("action", "denied"), [("deny", True), ("warn", False), ("audit", False), ("patch", False)]
)
def test_what_can_not_be_decided_is_denied_by_what_denies(action: str, denied: bool) -> None:
    said = policy(rule('container.labels.x == ""', action)).decide(creating())
    assert [type(word) for word in said] == [Note, Deny][: 2 if denied else 1]


@pytest.mark.parametrize(
    "match",
    [
        'container.image.startsWith("x")',
        'container.mounts.exists(m, m.resolved.startsWith("/etc"))',
        'container.mounts.exists(m, m.resolved.matches("^/etc"))',
        'container.kubernetes.namespace == "x"',
        'container.started_by.comm == "x"',
        'container.image != null && container.image == "x"',
        "container.kubernetes != null",
        "container.uid == 0",
        "has(container.image) || has(container.kubernetes.pod) || has(container.uid)",
        "!(null == container.image && container.kubernetes == null && container.user == null)",
        "container.mounts.exists(m, m.resolved != null)",
        "process != null",
    ],
)
def test_what_is_missing_reads_as_empty(match: str) -> None:
    mounts = (Mount("proc", "/proc", "proc"), Mount("tmpfs", "/tmp", "tmpfs"))
    assert policy(rule(match)).decide(creating(mounts=mounts)) == []


def test_a_record_that_cel_does_not_take() -> None:
    note, verdict = policy(rule("container.id == 'x'")).decide(creating(id="\udcff"))
    assert isinstance(note, Note) and note.action == "error" and isinstance(verdict, Deny)


def test_what_fails_closed_denies_on_an_error_too() -> None:
    said = policy(rule('container.labels["x"] == ""', fail_closed=True)).decide(creating())
    assert [type(word) for word in said] == [Note, Deny]


def test_a_container_whose_config_is_not_known_is_not_taken_for_a_harmless_one() -> None:
    rules = policy(
        rule("container.privileged") + "\n" + rule('container.runtime == "crun"', "warn", name="by-runtime")
    )
    note, verdict = rules.decide(creating(rootfs=None))
    assert isinstance(note, Note)
    why = "container.privileged is not known: its config.json could not be read"
    assert note.message == f"rule r could not be decided: {why}"
    assert verdict == Deny(note.message, "r")


@pytest.mark.parametrize(
    ("match", "decided"),
    [
        ("container.privileged", True),
        ("container.args.exists(a, a == 'x')", False),
        ("container.args.exists(a, a == 'x') && container.privileged", True),
        ("container.args == ['a'] || container.privileged", False),
        ("container == container", False),
    ],
)
def test_what_is_told_in_part_is_not_taken_for_the_whole(match: str, decided: bool) -> None:
    said = policy(rule(match, on_error="deny")).decide(creating(args=("a",), truncated=("args",)))
    assert said == [] if decided else isinstance(said[-1], Deny)


def test_an_exec_that_is_told_in_part() -> None:
    process = Process(argv=("a",), truncated=("argv",))
    event = Event(type="exec", gate="exec", container=Container(id="c", rootfs="/r"), process=process)
    note, _ = policy(rule('process.argv.exists(a, a == "x")')).decide(event)
    assert isinstance(note, Note) and note.message.endswith("process.argv is too large to be told in full")


def test_an_exec_whose_process_is_not_known_is_not_taken_for_a_harmless_one() -> None:
    event = Event(type="exec", gate="exec", container=Container(id="c", rootfs="/r"))
    said = policy(rule('process.argv.exists(a, a == "x")', on_error="deny")).decide(event)
    assert isinstance(said[-1], Deny)


@pytest.mark.parametrize(
    ("match", "most"),
    [
        ('container.annotations.exists(k, container.annotations[k] == "x")', 500),
        ('container.annotations.map(k, k + "x").size() == 1', 500),
        ('container.annotations.exists(k, k.matches("x"))', 500),
        ("container.annotations.exists(k, k in container.args)", 500),
        ('container.annotations.exists(k, container.args.exists(a, a.matches(":")))', 50),
        (
            'container.mounts.exists(m, m.options.exists(o, o.matches("x"))) || "" in container.annotations',
            500,
        ),
    ],
)
def test_what_would_take_seconds_with_the_gil_is_not_asked(match: str, most: int) -> None:
    few = creating(annotations={str(n): "" for n in range(most - 1)})
    many = creating(annotations={str(n): "" for n in range(10_000)})
    rules = policy(rule(match))
    assert not rules.decide(few)
    note, verdict = rules.decide(many)
    assert isinstance(note, Note) and f"container.annotations has 10000 items, {most} are" in note.message
    assert isinstance(verdict, Deny)


@pytest.mark.parametrize(
    "match",
    [
        'container.args.exists(a, a == "x")',
        "container.args.exists(a, a == container.id)",
        '["x", "y"].exists(p, container.args.exists(a, a.startsWith(p)))',
        '["x", "y"].exists(p, container.image.matches("x") || p in container.args)',
    ],
)
def test_what_is_quick_is_asked_of_any_number(match: str) -> None:
    assert policy(rule(match)).decide(creating(args=("",) * 4900)) == []


def test_the_longest_that_anybody_can_make_it_take() -> None:
    """Python waits for all of it: a pattern, asked of as many and as long texts as there may be."""
    rules = policy(rule(r'container.args.exists(a, a.matches("^/(usr|opt|srv)/[a-z]{1,20}/[0-9]+[.]sock$"))'))
    event = creating(args=("/usr/" + "x" * 400,) * 499)
    started = time.thread_time()
    assert rules.decide(event) == []
    assert time.thread_time() - started < 0.5


def test_a_message_that_would_take_seconds_is_not_made() -> None:
    text = rule("true", message_expression="string(container.args.map(a, a).size())")
    (said,) = policy(text).decide(creating(args=("a",) * 1000))
    assert isinstance(said, Deny) and "its message could not be made" in said.message


# Files that are wrong


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[[rule]]\nname = 'a'\nmatch = 1\naction = 'deny'",
            "rules.toml:3:9: match: Expected `str`, got `int`",
        ),
        ("[[rule]]\nmatch = 'true'\naction = 'deny'", "Object missing required field `name`"),
        (
            "[[rule]]\nname = 'a'\nmatc = 'true'\naction = 'deny'",
            "rules.toml:3:8: unknown key matc: did you mean match?",
        ),
        (
            "[[rule]]\nname = 'a'\nmatch = 'true'\naction = 'kill'",
            "rules.toml:4:10: action: Invalid enum value 'kill'",
        ),
        ("[[rules]]\n", "rules.toml:1:3: unknown key rules: did you mean rule?"),
        ("rule = 3\n", "rules.toml:1:8: rules are tables that begin with [[rule]]"),
        ("[[rule]\n", "rules.toml:1:7: "),
        ("[[rule]]\nname = 'a'\nmatch = '1 +'\naction = 'deny'", "rules.toml:3:13: match: mismatched input"),
        (
            "\n\n[[rule]]\nname = 'a'\naction = 'deny'\nmatch = '''\ntrue ||\n  )'''",
            "rules.toml:8:3: match: mismatched input",
        ),
        (
            "[[rule]]\nname='a'\naction='deny'\nmatch='true'\n[[rule]]\nname='b'\n"
            "action='deny'\n  match = 'container.privilged'",
            "rules.toml:8:22: match: unknown field of container privilged: did you mean privileged?",
        ),
        (
            "[[rule]]\nname='a'\naction='deny'\nmatch='container.mounts.exists(m, m.type == 3)'",
            "rules.toml:4:42: match: == does not take string and int",
        ),
        (
            "[[rule]]\nname='a'\naction='deny'\nmatch='[1].exists(container, true) && container.seccomp'",
            "rules.toml:4:18: match: the loop's variable container hides the event's container: rename it",
        ),
        ("[[rule]]\nname='a'\naction='deny'\nmatch='container.image'", "true or false, and gives string"),
        (
            "[[rule]]\nname='a'\naction='deny'\nmatch='true'\nmessage_expression='container.pid'",
            "rules.toml:5:21: message_expression: it has to give a text, and gives int",
        ),
        ("[[rule]]\nname='a'\naction='deny'\nmatch='held_us == 1'", "held_us can't be asked for here"),
        (
            "[[rule]]\nname='a'\naction='deny'\nmatch='container.id.matches(container.image)'",
            "the pattern of matches has to stand in the expression itself",
        ),
        (
            "[[rule]]\nname='a'\naction='deny'\nmatch='container.id.matches(\"(\")'",
            "rules.toml:4:28: match: invalid regular expression: missing ): (",
        ),
        (
            "[[rule]]\nname='a'\naction='deny'\nmatch='container.id.matches(r\"\\pL{100}\")'",
            "the pattern takes too long to be compiled",
        ),
        ("[[rule]]\nname='a'\naction='deny'\nmatch='container.mounts[0] == null'", "only a field can be"),
        ("[[rule]]\nname='a'\naction='deny'\nmatch='[null].size() == 1'", "null can only be compared"),
        (
            "[[rule]]\nname='a'\naction='deny'\nmatch='" + "(" * 40 + "true" + ")" * 40 + "'",
            "nested too deeply",
        ),
        (
            "[[rule]]\nname='a'\naction='deny'\nmatch='contaner.id == \"\"'",
            "rules.toml:4:8: match: unknown name contaner: did you mean container?",
        ),
        (
            "[[rule]]\nname='a'\naction='deny'\nmatch='container.id.startWith(\"x\")'",
            "did you mean startsWith?",
        ),
        (
            "[[rule]]\nname='a'\naction='deny'\nmatch='true'\nmessage='x'\nmessage_expression='\"x\"'",
            "not both",
        ),
        (
            "[[rule]]\nname='a'\naction='patch'\nmatch='true'",
            "rules.toml:3:8: a rule has a [rule.patch] table",
        ),
        (
            "[[rule]]\nname='a'\naction='deny'\nmatch='true'\n[rule.patch]\npids = 3",
            "a rule has a [rule.patch] table",
        ),
        (
            "[[rule]]\nname='a'\naction='patch'\nmatch='container.pid > 1'\n[rule.patch]\npids = 3",
            "at creating only",
        ),
        (
            "[[rule]]\nname='a'\naction='patch'\nmatch='true'\n[rule.patch]\npid = 3",
            "rules.toml:6:7: unknown key pid: did you mean pids?",
        ),
        (
            "[[rule]]\nname='a'\naction='patch'\nmatch='true'\n[rule.patch]\npids = 0",
            "rules.toml:6:8: pids: the limit must be positive",
        ),
        (
            "[[rule]]\nname='a'\naction='patch'\nmatch='true'\n[rule.patch]\nmemory = 'much'",
            "rules.toml:6:10: memory: 'much' is no size",
        ),
        (
            "[[rule]]\nname='a'\naction='patch'\nmatch='true'\n[rule.patch]\nseccomp = '/nonesuch'",
            "seccomp: /nonesuch: No such file",
        ),
        (
            "[[rule]]\nname='a'\naction='patch'\nmatch='true'\n"
            "[rule.patch]\njson_patch = [{op='zap', path='/a'}]",
            "Unknown operation 'zap'",
        ),
        (
            "[[rule]]\nname='a'\naction='patch'\nmatch='true'\n[rule.patch]\ndrop_capabilities = ['FLY']",
            "unknown: CAP_FLY",
        ),
        (
            "[[rule]]\nname='a'\naction='deny'\nmatch='process.tty'\non=['creating']",
            "the rule asks for process",
        ),
        (
            "[[rule]]\nname='a'\naction='deny'\nmatch='container.pid > 1'\non=['creating']",
            "not known at creating yet",
        ),
        ("[[rule]]\nname='a'\naction='deny'\nmatch='true'\non=[]", "rules.toml:5:4: no event is listed"),
        ("[[rule]]\nname='a'\naction='warn'\nmatch='true'\nfail_closed=true", "has nothing to close"),
        (
            "[[rule]]\nname=''\naction='warn'\nmatch='true'",
            "rules.toml:2:6: its name has to be of printable characters",
        ),
        (
            2 * "[[rule]]\nname='a'\naction='warn'\nmatch='true'\n",
            "rules.toml:6:6: there are two rules named a",
        ),
    ],
)
def test_where_a_file_is_wrong(text: str, message: str) -> None:
    assert message in error(text)
    assert error(text).startswith("rules.toml")


@only_root
def test_a_seccomp_file_that_others_may_write(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("[[rule]]\nname='a'\naction='patch'\nmatch='true'\n[rule.patch]\nseccomp='s.json'")
    (tmp_path / "s.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert load([str(rules)], tomlfile.read_trusted).rules
    (tmp_path / "s.json").chmod(0o666)
    with pytest.raises(UsageError, match=r"s\.json may be written by others than root"):
        load([str(rules)], tomlfile.read_trusted)
    assert load([str(rules)]).rules


def test_a_name_within_a_string_is_no_name() -> None:
    policy(rule('"nonsense.x" != container.id && !(r"\\foo(" == "bar") // baz'))


# Any container, any rule

text = st.text(max_size=5)
names = st.dictionaries(text, text, max_size=3)
containers = st.builds(
    Container,
    id=text,
    name=st.none() | text,
    image=st.none() | text,
    labels=names,
    annotations=names,
    rootfs=st.none() | text,
    pid=st.none() | st.integers(0, 2**22),
    kubernetes=st.none() | st.builds(Kubernetes, namespace=st.none() | text),
    namespaces=st.builds(Namespaces, net=st.none() | st.integers(0, 2**32)),
    args=st.lists(text, max_size=3).map(tuple),
    privileged=st.booleans(),
    capabilities=st.lists(text, max_size=3).map(tuple),
    mounts=st.lists(st.builds(Mount, source=text, destination=text, type=text), max_size=3).map(tuple),
    user=st.none() | text,
)
terms = st.sampled_from(
    [
        "true",
        "container.privileged",
        "container.pid > 3",
        'container.labels["a"] == "b"',
        "container.kubernetes.namespace == container.name",
        "container.mounts.exists(m, m.source == container.id)",
        'container.mounts[1].options[0] == "x"',
        "1 / container.pid > 0",
        'container.image.startsWith("x")',
        "size(container.args) > 9223372036854775807 + 1",
        "has(container.kubernetes.pod)",
        "container.namespaces.net == 3",
        "container.args.map(a, int(a)).exists(n, n > 1)",
        'sets.contains(container.capabilities, ["CAP_X"])',
        "container.image == null",
        "container.kubernetes != null",
        "process == null",
    ]
)
expressions = st.recursive(
    terms,
    lambda inner: st.one_of(
        inner.map(lambda a: f"!({a})"),
        st.tuples(inner, st.sampled_from(["&&", "||", "=="]), inner).map(
            lambda p: f"({p[0]}) {p[1]} ({p[2]})"
        ),
    ),
    max_leaves=4,
)
tables = st.fixed_dictionaries(
    {"match": expressions, "action": st.sampled_from(["deny", "warn", "audit"])},
    optional={
        "on_error": st.sampled_from(["allow", "deny"]),
        "message_expression": st.just("container.labels.x"),
    },
)


def rules_of(drawn: list[dict[str, str]]) -> Policy:
    on = list(get_args(RuleEvent))
    return policy(
        "\n".join(
            rule(
                d["match"],
                d["action"],
                f"r{n}",
                **{k: v for k, v in d.items() if k not in ("match", "action")},
                on=["created"] if "creating" not in on else ["created", "exec"],
            )
            for n, d in enumerate(drawn)
        )
    )


@given(st.lists(tables, min_size=1, max_size=4), containers)
def test_there_is_always_a_verdict(drawn: list[dict[str, str]], container: Container) -> None:
    rules = rules_of(drawn)
    said = rules.decide(Event(type="created", gate="pidfile", container=container))
    assert all(isinstance(word, Deny | Note) for word in said)
    denies = [word for word in said if isinstance(word, Deny)]
    assert len(denies) <= 1
    # What a rule says does not depend on those that are asked with it, but for what follows a deny.
    alone = [_alone(each, container) for each in drawn]
    first = next((n for n, words in enumerate(alone) if any(isinstance(w, Deny) for w in words)), len(alone))
    expected = [
        len(words) if n <= first or drawn[n]["action"] != "deny" else 0 for n, words in enumerate(alone)
    ]
    assert len(said) - len(denies) == sum(expected) - sum(
        isinstance(word, Deny)
        for n, words in enumerate(alone)
        if n <= first or drawn[n]["action"] != "deny"
        for word in words
    )
    assert bool(denies) == (first < len(alone))


def _alone(table: dict[str, str], container: Container) -> list[Said]:
    return rules_of([table]).decide(Event(type="created", gate="pidfile", container=container))


def test_a_callback_of_the_watcher() -> None:
    listeners = Listeners()
    listeners.replace((), policy(rule("container.privileged")).registrations())
    assert listeners.call(creating(privileged=True)).deny == Deny("r", "r")
    assert listeners.call(creating()).deny is None


# Exceptions

SYSTEM = '[[exception]]\nname = "system"\nmatch = \'container.kubernetes.namespace == "kube-system"\'\n'


def in_namespace(name: str, **more: Any) -> Event:
    return creating(kubernetes=Kubernetes(namespace=name), **more)


@pytest.mark.parametrize("action", ["deny", "warn", "patch"])
def test_an_exception_lets_off(action: str) -> None:
    rules = policy(rule("container.privileged", action) + "\n" + SYSTEM)
    assert rules.decide(in_namespace("shop", privileged=True)) != []
    assert rules.decide(in_namespace("kube-system", privileged=True)) == []


def test_an_exception_for_one_rule() -> None:
    text = rule("true", name="a") + "\n" + rule("true", "warn", "b") + "\n" + SYSTEM + "rules = ['a']\n"
    assert [word.rule for word in policy(text).decide(in_namespace("kube-system"))] == ["b"]
    assert [word.rule for word in policy(text).decide(in_namespace("shop"))] == ["a", "b"]


def test_what_a_rule_can_not_decide_is_let_off_too() -> None:
    rules = policy(rule('container.labels.x == "y"') + "\n" + SYSTEM)
    assert rules.decide(in_namespace("kube-system")) == []
    assert isinstance(rules.decide(in_namespace("shop"))[-1], Deny)


@pytest.mark.parametrize(
    ("match", "container"),
    [
        ('container.labels.x == "y"', {}),
        ('container.image == "trusted"', UNKNOWN),
        ("container.user == '0:0'", {"rootfs": None}),
        ('container.args.exists(a, a == "ok")', {"args": ("ok",), "truncated": ("args",)}),
    ],
)
def test_an_exception_that_can_not_be_decided_is_none(match: str, container: dict[str, Any]) -> None:
    exception = f'[[exception]]\nname = "e"\nmatch = """{match}"""\n'
    assert policy(rule("true") + "\n" + exception).decide(creating(**container)) == [Deny("r", "r")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SYSTEM + "rules = ['b']\n", "rules.toml:9:9: there is no rule b in this file"),
        (SYSTEM + SYSTEM, "there are two exceptions named system"),
        ("[[exception]]\nname='e'\nmatch='container.idd == \"\"'", "match: unknown field of container idd"),
        (
            "[[exception]]\nname='e'\nmatch='process.tty'",
            "rules.toml:8:7: it asks for process, which only exec has, and rule r is asked at creating",
        ),
        (
            "[[exception]]\nname='e'\nmatch='container.pid == 1'",
            "it asks for what is not known at creating yet",
        ),
        ("[[exception]]\nname='e'\nmatches='true'", "unknown key matches: did you mean match?"),
        ("[[exceptions]]\n", "unknown key exceptions: did you mean exception?"),
        ("exception = 3\n", "exceptions are tables that begin with [[exception]]"),
    ],
)
def test_where_an_exception_is_wrong(text: str, message: str) -> None:
    wrong = text + "\n" + rule("true") if text.startswith("exception") else rule("true") + "\n" + text
    assert message in error(wrong)
