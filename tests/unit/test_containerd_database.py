"""containerd's database: a real one, of containerd 2.4, and ones that are broken, or change meanwhile."""

from __future__ import annotations

import lzma
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.engines import identify
from startgate.engines.bolt import BoltError, Database, Read
from startgate.engines.containerd_database import Stored, stored
from startgate.engines.facts import Facts
from startgate.events import Container, Kubernetes
from tests.unit.fakes import EngineFiles

DATA = lzma.decompress((Path(__file__).parents[1] / "data/containerd-meta.db.xz").read_bytes())
SANDBOX = "1eeaf363b151df2eb379b9fa3b9a48b320ced000510567c618aaf2df1c8e634f"
APP = "b0d93460091b1415e74b12f47eedcbc0126dc033b09c31e7f4bafa9509837ed8"
PAGE = 4096
IMAGE = "startgate.test/busybox:1"
DIGEST = "sha256:007c09554ea81a1f1c2862a13eeaa3af689b8499e56633fff93f8002a180155c"
IMAGE_ID = "sha256:4750c9c97b0eee306ede2f09c1360358f0780c4c14b25c6b30badc30fef6afb8"
LINK = "work"  # in a bundle: to the directory of its shim


def reader(data: bytes) -> Read:
    return lambda offset, size: data[offset : offset + size]


def facts(namespace: str, identity: str, data: bytes = DATA, bundle_of: str = "") -> Facts:
    bundle = f"/run/containerd/io.containerd.runtime.v2.task/{namespace}/{bundle_of or identity}"
    database = os.path.normpath(f"{bundle}/{LINK}/../../../io.containerd.metadata.v1.bolt/meta.db")
    container = Container(id=identity, bundle=bundle)
    return Facts(container, "", EngineFiles({database: data}), list)


class Parts(EngineFiles):
    """A database that `read` reads."""

    def __init__(self, read: Callable[[str, int, int], bytes]) -> None:
        super().__init__()
        self._part = read

    def read_part(self, path: str, offset: int, size: int) -> bytes:
        return self._part(path, offset, size)


def of(asked: Facts) -> Stored:
    found = stored(asked)
    assert found
    return found


def test_a_container() -> None:
    found = of(facts("sample", "c07"))
    assert (found.image, found.image_digest, found.image_id) == (IMAGE, DIGEST, IMAGE_ID)
    assert found.labels == {"number": "7", "io.containerd.image.config.stop-signal": "SIGTERM"}


def test_every_container_of_a_bucket_with_several_pages() -> None:
    numbers = [of(facts("sample", f"c{number:02}")).labels["number"] for number in range(30)]
    assert numbers == [str(number) for number in range(30)]


def test_labels_on_several_pages() -> None:
    labels = of(facts("sample", "many")).labels
    assert len(labels) == 401
    assert all(labels[f"label-{n:03}"] == f"value of label {n}" for n in range(400))


def known(asked: Facts, state_root: str = "/run/containerd/runc/x") -> Container:
    return identify(asked.container, state_root, asked.files, list)


def test_a_pods_container() -> None:
    """Of the CRI plugin's own record: nothing that an annotation says."""
    found = known(facts("k8s.io", APP))
    assert (found.engine, found.name, found.image) == ("containerd", "app", IMAGE)
    assert (found.image_reference, found.image_id, found.image_digest) == (IMAGE, IMAGE_ID, DIGEST)
    assert (found.labels["app"], found.labels["io.cri-containerd.kind"]) == ("web-1", "container")
    assert found.kubernetes == Kubernetes(
        "startgate-tests",
        "web-1",
        "uid-of-web-1",
        "app",
        SANDBOX,
        "container",
        attempt=0,
        annotations={"purpose": "test"},
    )
    assert (found.restart_count, found.unknown) == (0, ())


def test_a_sandbox() -> None:
    found = known(facts("k8s.io", SANDBOX))
    assert (found.name, found.image, found.labels["app"]) == ("web-1", "startgate.test/pause:1", "web-1")
    assert found.kubernetes and found.kubernetes.container_type == "sandbox"
    assert (found.kubernetes.pod, found.kubernetes.sandbox_id) == ("web-1", SANDBOX)
    assert found.unknown == ()


@pytest.mark.parametrize(
    ("namespace", "identity", "bundle"),
    [("sample", "c99", ""), ("nowhere", "c07", ""), ("sample", "c08", "c07"), ("sample", "labels", "")],
)
def test_what_it_does_not_have(namespace: str, identity: str, bundle: str) -> None:
    assert stored(facts(namespace, identity, bundle_of=bundle)) is None


def test_ctr() -> None:
    asked = facts("sample", "c07")
    found = known(asked)
    assert (found.name, found.image, found.labels["number"]) == ("c07", IMAGE, "7")
    assert (found.restart_count, found.unknown) == (None, ())  # nobody counts


def test_ctr_without_its_database() -> None:
    """Annotations are not its labels: who knows who wrote them."""
    container = Container(id="c07", annotations={"a": "b"})
    found = identify(container, "/run/containerd/runc/sample", EngineFiles(), list)
    assert (found.name, found.image, found.labels) == ("c07", None, {})
    assert found.unknown == ("image", "image_reference", "image_id", "image_digest", "labels")


def with_transaction(data: bytes, page: int, txid: int) -> bytes:
    """Return the database with another transaction number in a meta page."""
    summed = data[page * PAGE + 16 : page * PAGE + 64] + txid.to_bytes(8, "little")
    checksum = 0xCBF29CE484222325
    for byte in summed:
        checksum = (checksum ^ byte) * 0x100000001B3 % 2**64
    meta = summed[48:] + checksum.to_bytes(8, "little")
    start = page * PAGE + 64
    return data[:start] + meta + data[start + 16 :]


def test_a_transaction_while_it_is_read() -> None:
    """What was read in pieces of two transactions is not taken; what is read again is."""
    states = [DATA, with_transaction(DATA, 0, 10**6)]
    reads = 0

    def read(offset: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        return states[reads > 5][offset : offset + size]

    database = Database(read)
    assert database.root.bucket(b"v1", b"sample", b"containers")
    assert not database.unchanged()
    asked = facts("sample", "c07")
    reads = 0
    again = Facts(asked.container, "", Parts(lambda path, offset, size: read(offset, size)), list)
    assert of(again).image == IMAGE


def test_a_page_that_is_written_while_it_is_read() -> None:
    """It makes no sense once; the next time it does."""
    asked = facts("sample", "c07")
    reads = 0

    def read(path: str, offset: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        return b"\xff" * size if reads == 6 else asked.files.read_part(path, offset, size)

    assert of(Facts(asked.container, "", Parts(read), list)).image == IMAGE
    assert reads > 6


def test_a_database_that_always_changes() -> None:
    txid = 10**6

    def read(path: str, offset: int, size: int) -> bytes:
        nonlocal txid
        txid += 1
        return with_transaction(DATA, 0, txid)[offset : offset + size]

    container = facts("sample", "c07").container
    assert stored(Facts(container, "", Parts(read), list)) is None


@pytest.mark.parametrize("data", [b"", b"\0" * 70000, DATA[:100], DATA[: 2 * PAGE], DATA[PAGE:]])
def test_what_is_no_database(data: bytes) -> None:
    assert stored(facts("sample", "c07", data)) is None


def test_the_second_meta_page_when_the_first_is_broken() -> None:
    database = Database(reader(b"\0" * PAGE + DATA[PAGE:]))
    assert database.root.bucket(b"v1")


def used_pages() -> list[int]:
    """Return offsets of the pages that are read for a lookup."""
    seen = []

    def read(path: str, offset: int, size: int) -> bytes:
        seen.append(offset)
        return DATA[offset : offset + size]

    stored(Facts(facts("sample", "many").container, "", Parts(read), list))
    return sorted({offset // PAGE * PAGE for offset in seen})


USED = used_pages()


@given(
    st.lists(
        st.tuples(st.sampled_from(USED), st.integers(0, PAGE - 1), st.binary(min_size=1, max_size=8)),
        max_size=20,
    )
)
def test_broken_pages_are_an_error_or_another_answer_and_end(changes: list[tuple[int, int, bytes]]) -> None:
    data = bytearray(DATA)
    for page, offset, junk in changes:
        data[page + offset : page + offset + len(junk)] = junk
    asked = facts("sample", "many", bytes(data))
    assert isinstance(stored(asked), Stored | None)


def test_a_page_that_leads_to_itself() -> None:
    """Each root page becomes a branch whose only child is itself."""
    data = DATA
    for meta in (0, 1):
        (root,) = struct.unpack_from("<Q", DATA, meta * PAGE + 32)
        branch = struct.pack("<QHHI", root, 1, 1, 0) + struct.pack("<IIQ", 16, 0, root)
        data = data[: root * PAGE] + branch + data[root * PAGE + len(branch) :]
    database = Database(reader(data))
    with pytest.raises(BoltError):
        list(database.root.items())
    with pytest.raises(BoltError):
        database.root.bucket(b"v1")
