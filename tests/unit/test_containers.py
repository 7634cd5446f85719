"""`ps` and `inspect`: which container is meant, and how it is shown."""

from __future__ import annotations

import json

import pytest

from startgate.cli import containers
from startgate.errors import StartgateError, UsageError
from startgate.events import Container, Kubernetes
from startgate.kernel.process import ProcessId
from startgate.lifecycle import Key
from startgate.running import Running


def running(identity: str, *, started: bool = True, **fields: object) -> Running:
    container = Container(**({"id": identity, "pid": 42, "runtime": "runc"} | fields))  # type: ignore[arg-type]
    return Running(Key("/run/runc", identity), ProcessId(42, 1), container, None, started)


ALL = [
    running("abc1", name="web"),
    running("abc2", name="db", image="postgres:16", args=("postgres", "-D", "/d\033[31m")),
    running("web2", started=False),
]


@pytest.mark.parametrize(
    ("wanted", "identity"),
    [("abc1", "abc1"), ("web", "abc1"), ("db", "abc2"), ("w", "web2"), ("web2", "web2")],
)
def test_the_container_that_is_meant(wanted: str, identity: str) -> None:
    assert containers.choose(ALL, wanted).container.id == identity


def of_pod(identity: str, pod: str, container: str | None, namespace: str = "default") -> Running:
    kind = "container" if container else "sandbox"
    return running(
        identity,
        name=container,
        engine="containerd",
        kubernetes=Kubernetes(namespace, pod, container=container, container_type=kind),
    )


PODS = [
    of_pod("p0", "web-0", None),
    of_pod("c0", "web-0", "app"),
    of_pod("c1", "web-1", "app"),
    of_pod("c2", "web-0", "app", "test"),
]


@pytest.mark.parametrize(
    ("wanted", "identity"),
    [("default/web-0/app", "c0"), ("web-1/app", "c1"), ("test/web-0/app", "c2"), ("default/web-0", "p0")],
)
def test_a_container_of_a_pod_is_meant(wanted: str, identity: str) -> None:
    assert containers.choose(PODS, wanted).container.id == identity


@pytest.mark.parametrize("wanted", ["app", "web-0/app"])
def test_several_pods_have_such_a_container(wanted: str) -> None:
    with pytest.raises(StartgateError, match="ambiguous"):
        containers.choose(PODS, wanted)


@pytest.mark.parametrize("wanted", ["0/app", "web-0/ap", "web-2/app", "/app"])
def test_no_pod_has_it(wanted: str) -> None:
    with pytest.raises(StartgateError, match="no container"):
        containers.choose(PODS, wanted)


@pytest.mark.parametrize("output", ["table", "json"])
def test_pause_containers_are_shown_when_asked_for(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    containers.show(PODS, output, None)
    assert len(capsys.readouterr().out.splitlines()) == 3 + (output == "table")
    containers.show(PODS, output, None, sandboxes=True)
    assert len(capsys.readouterr().out.splitlines()) == 4 + (output == "table")


def test_names_have_the_room_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = [of_pod("c", "shop-" + "7" * 30, "app")]
    for width, name in (
        (200, f"default/shop-{'7' * 30}/app"),
        (100, f"default/shop-{'7' * 14}…7777/app"),
        (80, "default/sho…7777/app"),
    ):
        head, line = containers._table(pods, width)
        assert line.startswith(name + " containerd ")
        assert head.index("ENGINE") == len(name) + 1


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("abc", "'abc' is ambiguous: abc1 in /run/runc, abc2 in /run/runc"),
        ("x", "no container 'x' runs here"),
        ("", "no container '' runs here"),
        ("\udcff", "no container '\ufffd' runs here"),
    ],
)
def test_no_container_is_meant(wanted: str, said: str) -> None:
    with pytest.raises(StartgateError) as error:
        containers.choose(ALL, wanted)
    assert str(error.value).startswith(said)


def test_ids_that_two_runtimes_use() -> None:
    with pytest.raises(StartgateError, match="ambiguous"):
        containers.choose([running("same"), running("same")], "same")


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    containers.show(ALL, "table", None)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["CONTAINER", "ENGINE", "PID", "UP", "IMAGE", "COMMAND"]
    assert [row.split()[0] for row in rows] == ["web", "db", "web2"]
    assert rows[1].endswith("postgres:16            postgres -D /d?[31m")
    assert rows[2].split()[3] == "created"


def test_a_table_in_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    long = running(
        "0123456789abcdef" * 4, image="registry.example.com/team/" + "app" * 20, args=("word",) * 50
    )
    containers.show([long], "table", None)
    (_, row) = capsys.readouterr().out.splitlines()
    assert long.container.id in row and f"{long.container.image} word" in row and row.count("word") == 50


def test_no_output_has_what_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    odd = running(
        "abc", name="n\u009b31m", image="i\x7f", args=("\u202ex\u2028",), labels={"\u2066": "\x1b[2J"}
    )
    config = json.dumps({"\u202e": "\u009b"}).encode()
    for output in ("table", "json"):
        containers.show([odd], output, None)
        containers.tell(odd, output, config)
        for line in capsys.readouterr().out.split("\n"):
            assert line.isprintable(), line


def test_json_and_a_filter(capsys: pytest.CaptureFixture[str]) -> None:
    containers.show(ALL, "json", 'container.name == "db"')
    (record,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (record["status"], record["id"], record["image"]) == ("running", "abc2", "postgres:16")
    with pytest.raises(UsageError):
        containers.show(ALL, "json", "nope")


def test_all_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    containers.tell(ALL[1], "json", b'{"a": 1}')
    record = json.loads(capsys.readouterr().out)
    assert (record["id"], record["oci"]) == ("abc2", {"a": 1})
    containers.tell(ALL[1], "table", None)
    lines = capsys.readouterr().out.splitlines()
    assert "id                     abc2" in lines
    assert "hostname               -" in lines
    assert "\033" not in "".join(lines)
    with pytest.raises(StartgateError, match="not JSON"):
        containers.tell(ALL[1], "json", b"{")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0.9, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172800, "2d")],
)
def test_ages(seconds: float, text: str) -> None:
    assert containers.age(seconds) == text
