from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from startgate import engines
from startgate.events import Container, Event, Mount, printable
from startgate.foreign import OVERHEAD, SIZE, TEXT, Fitting, json_line, size
from startgate.runtimes import describe, oci
from tests.unit.fakes import EngineFiles

MANY = 70_000


def described(**document: object) -> Container:
    config = oci.decode_config(json.dumps(document).encode())
    return describe.container_of(Container(id="c", bundle="/b"), config, frozenset())


@given(st.text())
def test_json_has_nothing_that_a_terminal_obeys_and_says_the_same(text: str) -> None:
    data = json_line({text: [text]})
    assert data.decode().isprintable()
    assert json.loads(data) == {text: [text]}


def test_what_json_escapes() -> None:
    assert json_line("a\u009b\x7f\u202e\u2028\U000e0041ä😀\n") == (
        r'"a\u009b\u007f\u202e\u2028\udb40\udc41ä😀\n"'.encode()
    )


def test_what_fits_is_whole() -> None:
    fitting = Fitting()
    assert fitting.words("args", ["a", "b"]) == ("a", "b")
    assert fitting.pairs("labels", {"a": "b"}) == {"a": "b"}
    assert fitting.items("mounts", [1, 2], lambda item: 1) == (1, 2)
    assert fitting.cut == ()


def test_words_are_cut_at_the_first_that_does_not_fit() -> None:
    fitting = Fitting()
    assert fitting.words("args", ["a", "b" * SIZE, "c"]) == ("a",)
    assert fitting.cut == ("args",)


def test_pairs_that_fit_are_kept_beside_one_that_does_not() -> None:
    fitting = Fitting()
    assert fitting.pairs("labels", {"a": "b" * SIZE, "c": "d", "e" * SIZE: ""}) == {"c": "d"}
    assert fitting.cut == ("labels",)


def test_only_what_was_cut_is_named() -> None:
    fitting = Fitting()
    fitting.words("args", [""] * MANY)
    fitting.pairs("labels", {})
    assert fitting.cut == ("args",)


@given(st.lists(st.text(max_size=SIZE // 8) | st.just("x" * (SIZE // 3))))
def test_no_more_than_the_limit(words: list[str]) -> None:
    fitting = Fitting()
    kept = fitting.words("args", words)
    assert size(*kept) <= SIZE
    assert bool(fitting.cut) == (list(kept) != words)
    assert words[: len(kept)] == list(kept)


def test_a_text_is_clipped_and_shows_it() -> None:
    assert printable("x" * TEXT) == "x" * TEXT
    assert printable("x" * (TEXT + 1)) == "x" * (TEXT - 1) + "…"


def test_a_million_mounts_give_a_small_event() -> None:
    mount = {"destination": "/a", "source": "/b", "options": ["ro"]}
    container = described(mounts=[mount] * MANY, process={"args": ["x"] * MANY})
    assert 1000 < len(container.mounts) <= SIZE // OVERHEAD
    assert set(container.truncated) == {"args", "mounts"}
    event = Event(type="created", gate="none", container=container)
    assert len(event.to_json()) < 4 * SIZE


def test_a_mount_of_a_million_options() -> None:
    container = described(
        mounts=[{"destination": "/a", "options": ["o"] * MANY}, {"destination": "/b"}], hostname="h" * MANY
    )
    assert container.mounts == (Mount("", "/b", ""),)
    assert container.truncated == ("mounts",)
    assert container.hostname == printable("h" * MANY)


def test_labels_of_an_engine_are_cut_too() -> None:
    labels = {str(number): "" for number in range(MANY)}
    docker = json.dumps({"ID": "c", "Name": "/n", "Config": {"Labels": labels}}).encode()
    container = described(root={"path": "/d/overlay2/l/merged"})
    known = engines.identify(container, "/run/docker/runtime-runc/moby", EngineFiles(every=docker), list)
    assert known.name == "n"
    assert 0 < len(known.labels) < MANY
    assert known.truncated == ("labels",)


def test_a_long_pod_name_is_clipped() -> None:
    notes = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-name": "p" * 5000}
    root = "/run/containerd/runc/k8s.io"
    known = engines.identify(described(annotations=notes), root, EngineFiles(), list)
    assert known.kubernetes and known.kubernetes.pod == printable("p" * 5000)
    assert known.kubernetes.namespace is None


def test_a_file_of_docker_that_is_no_utf8() -> None:
    container = described(root={"path": "/d/overlay2/l/merged"})
    junk = b'{"ID": "c", "Name": "\xff"}'
    known = engines.identify(container, "/run/docker/runtime-runc/moby", EngineFiles(every=junk), list)
    assert (known.engine, known.name) == ("docker", None)


def test_metadata_of_podman_that_is_too_deep() -> None:
    notes = {"io.container.manager": "libpod"}
    container = Container(id="c", bundle="/s/overlay-containers/c/userdata", annotations=notes)
    stored = json.dumps([{"id": "c", "names": ["n"], "metadata": '{"a":' * MANY}]).encode()
    known = engines.identify(container, "/run", EngineFiles(every=stored), list)
    assert (known.name, known.image) == ("n", None)
