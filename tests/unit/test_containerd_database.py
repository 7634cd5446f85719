"""containerd's database: a real one, of containerd 2.4, and ones that are broken, or change meanwhile."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.engines import identify
from startgate.engines.bolt import BoltError, Database, Read
from startgate.engines.containerd_database import Stored, stored
from startgate.engines.facts import Facts
from startgate.events import Container

DATA = lzma.decompress((Path(__file__).parents[1] / "data/containerd-meta.db.xz").read_bytes())
SANDBOX = "1eeaf363b151df2eb379b9fa3b9a48b320ced000510567c618aaf2df1c8e634f"
APP = "b0d93460091b1415e74b12f47eedcbc0126dc033b09c31e7f4bafa9509837ed8"
PAGE = 4096
IMAGE = "startgate.test/busybox:1"
LINK = "work"  # in a bundle: to the directory of its shim


def reader(data: bytes) -> Read:
    return lambda offset, size: data[offset : offset + size]


def facts(namespace: str, identity: str, data: bytes = DATA, bundle_of: str = "") -> Facts:
    bundle = f"/run/containerd/io.containerd.runtime.v2.task/{namespace}/{bundle_of or identity}"
    database = f"{bundle}/{LINK}/../../../io.containerd.metadata.v1.bolt/meta.db"

    def read_at(path: str, offset: int, size: int) -> bytes:
        if path != database:
            raise FileNotFoundError(path)
        return data[offset : offset + size]

    container = Container(id=identity, bundle=bundle)
    return Facts(container, "", lambda path: b"", read_at, list)


def test_a_container() -> None:
    found = stored(facts("sample", "c07"))
    assert found.image == IMAGE
    assert found.labels == {"number": "7", "io.containerd.image.config.stop-signal": "SIGTERM"}


def test_every_container_of_a_bucket_with_several_pages() -> None:
    numbers = [stored(facts("sample", f"c{number:02}")).labels["number"] for number in range(30)]
    assert numbers == [str(number) for number in range(30)]


def test_labels_on_several_pages() -> None:
    labels = stored(facts("sample", "many")).labels
    assert len(labels) == 401
    assert all(labels[f"label-{n:03}"] == f"value of label {n}" for n in range(400))


def test_a_pods_container_has_the_pods_labels() -> None:
    found = stored(facts("k8s.io", APP), SANDBOX)
    assert found.image == IMAGE
    assert (found.labels["app"], found.labels["io.cri-containerd.kind"]) == ("web-1", "container")
    assert stored(facts("k8s.io", SANDBOX), SANDBOX).image == "startgate.test/pause:1"


@pytest.mark.parametrize(
    ("namespace", "identity", "bundle"),
    [("sample", "c99", ""), ("nowhere", "c07", ""), ("sample", "c08", "c07"), ("sample", "labels", "")],
)
def test_what_it_does_not_have(namespace: str, identity: str, bundle: str) -> None:
    assert stored(facts(namespace, identity, bundle_of=bundle)) == Stored()


def test_ctr() -> None:
    asked = facts("sample", "c07")
    found = identify(asked.container, "/run/containerd/runc/sample", asked.read, list, asked.read_at)
    assert (found.name, found.image, found.labels["number"]) == ("c07", IMAGE, "7")


def test_ctr_without_its_database() -> None:
    container = Container(id="c07", annotations={"a": "b"})
    found = identify(container, "/run/containerd/runc/sample", lambda path: b"", list)
    assert (found.name, found.image, found.labels) == ("c07", None, {"a": "b"})


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
    again = Facts(asked.container, "", asked.read, lambda path, offset, size: read(offset, size), list)
    assert stored(again).image == IMAGE


def test_a_page_that_is_written_while_it_is_read() -> None:
    """It makes no sense once; the next time it does."""
    asked = facts("sample", "c07")
    reads = 0

    def read(path: str, offset: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        return b"\xff" * size if reads == 6 else asked.read_at(path, offset, size)

    assert stored(Facts(asked.container, "", asked.read, read, list)).image == IMAGE
    assert reads > 6


def test_a_database_that_always_changes() -> None:
    txid = 10**6

    def read(path: str, offset: int, size: int) -> bytes:
        nonlocal txid
        txid += 1
        return with_transaction(DATA, 0, txid)[offset : offset + size]

    container = facts("sample", "c07").container
    assert stored(Facts(container, "", lambda path: b"", read, list)) == Stored()


@pytest.mark.parametrize("data", [b"", b"\0" * 70000, DATA[:100], DATA[: 2 * PAGE], DATA[PAGE:]])
def test_what_is_no_database(data: bytes) -> None:
    assert stored(facts("sample", "c07", data)) == Stored()


def test_the_second_meta_page_when_the_first_is_broken() -> None:
    database = Database(reader(b"\0" * PAGE + DATA[PAGE:]))
    assert database.root.bucket(b"v1")


def used_pages() -> list[int]:
    """Return offsets of the pages that are read for a lookup."""
    seen = []

    def read(path: str, offset: int, size: int) -> bytes:
        seen.append(offset)
        return DATA[offset : offset + size]

    stored(Facts(facts("sample", "many").container, "", lambda path: b"", read, list))
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
    assert isinstance(stored(asked), Stored)


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
