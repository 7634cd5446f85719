"""SQLite databases as Podman 5 keeps them, made by SQLite itself: also while it writes to them."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.engines import identify, sqlite
from startgate.engines.sqlite_pages import Pages, SqliteError
from startgate.events import Container
from tests.unit.fakes import EngineFiles

# As libpod makes them (sqlite_state_internal.go), without what a lookup has no use for.
SCHEMA = """
CREATE TABLE IF NOT EXISTS DBConfig(ID INTEGER PRIMARY KEY NOT NULL, SchemaVersion INTEGER NOT NULL,
    CHECK (ID IN (1)));
CREATE TABLE IF NOT EXISTS IDNamespace(ID TEXT PRIMARY KEY NOT NULL);
CREATE TABLE IF NOT EXISTS ContainerConfig(
                ID              TEXT    PRIMARY KEY NOT NULL,
                Name            TEXT    UNIQUE NOT NULL,
                PodID           TEXT,
                JSON            TEXT    NOT NULL,
                FOREIGN KEY (ID)    REFERENCES IDNamespace(ID)    DEFERRABLE INITIALLY DEFERRED,
                FOREIGN KEY (PodID) REFERENCES PodConfig(ID)
        );
CREATE TABLE IF NOT EXISTS ContainerState(
                ID       TEXT    PRIMARY KEY NOT NULL,
                State    INTEGER NOT NULL,
                ExitCode INTEGER,
                JSON     TEXT    NOT NULL,
                FOREIGN KEY (ID) REFERENCES ContainerConfig(ID) DEFERRABLE INITIALLY DEFERRED,
                CHECK (ExitCode BETWEEN -1 AND 255)
        );
CREATE TABLE IF NOT EXISTS PodConfig(ID TEXT PRIMARY KEY NOT NULL, Name TEXT UNIQUE, JSON TEXT NOT NULL);
"""
STORAGE = "/var/lib/containers/storage"
MODES = ("delete", "persist", "truncate", "wal")
IDS = [f"{random.Random(number).getrandbits(256):064x}" for number in range(60)]


def config(identity: str, **more: object) -> str:
    own = {"id": identity, "name": f"n-{identity[:8]}", "labels": {"number": str(IDS.index(identity))}}
    image = {"rootfsImageID": "4" * 64, "rootfsImageName": "localhost/bb:1", "RawImageName": "bb:1"}
    return json.dumps(own | image | {"spec": "x" * (IDS.index(identity) * 500)} | more)


def state(**more: object) -> str:
    return json.dumps({"state": 3, "configPath": "x"} | more)


class OnDisk(EngineFiles):
    """A database, read as engines' files are."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def _real(self, path: str) -> Path:
        return self._path.with_name(os.path.basename(path))

    def read(self, path: str, limit: int) -> bytes:
        return self._real(path).read_bytes()

    def read_part(self, path: str, offset: int, size: int) -> bytes:
        with self._real(path).open("rb") as file:
            return os.pread(file.fileno(), size, offset)


@contextmanager
def database(path: Path, mode: str = "delete", page_size: int = 4096) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute("PRAGMA synchronous=OFF")  # no fsync(2) for each row
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.executescript(SCHEMA)
        rows = [(identity, identity[:8], None, config(identity)) for identity in IDS[:-1]]
        connection.executemany("INSERT INTO ContainerConfig VALUES (?, ?, ?, ?)", rows)
        connection.execute("PRAGMA synchronous=FULL")  # as Podman has it: a journal says how long it is
        states = [(identity, 3, 0, state(restartCount=number)) for number, identity in enumerate(IDS[:-1])]
        connection.executemany("INSERT INTO ContainerState VALUES (?, ?, ?, ?)", states)
        yield connection


def known(path: Path, identity: str) -> Container:
    container = Container(id=identity, bundle=f"{STORAGE}/overlay-containers/{identity}/userdata")
    return identify(container, "/run/runc", OnDisk(path), list)


def test_a_record_without_the_image(tmp_path: Path) -> None:
    """The storage has it."""
    path, storage = tmp_path / "db.sql", tmp_path / "containers.json"
    metadata = json.dumps({"image-name": "localhost/bb:2"})
    storage.write_text(json.dumps([{"id": IDS[0], "metadata": metadata}]))
    with database(path) as connection:
        without = json.dumps({"labels": {"a": "b"}})
        connection.execute("UPDATE ContainerConfig SET JSON = ? WHERE ID = ?", (without, IDS[0]))
        told = known(path, IDS[0])
    assert (told.image, told.labels) == ("localhost/bb:2", {"a": "b"})


def row(path: Path, identity: str) -> dict[str, bytes] | None:
    files = OnDisk(path)

    def whole(suffix: str) -> bytes | None:
        try:
            return files.read(f"{path}{suffix}", 1 << 30)
        except FileNotFoundError:
            return None

    return sqlite.ask(
        lambda offset, size: files.read_part(str(path), offset, size),
        whole,
        lambda found: found.row("ContainerConfig", identity.encode()),
    )


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("mode", MODES)
def test_every_container(tmp_path: Path, mode: str, page_size: int) -> None:
    path = tmp_path / "db.sql"
    with database(path, mode, page_size):
        for number, identity in enumerate(IDS[:-1]):
            told = known(path, identity)
            assert (told.engine, told.name) == ("podman", f"n-{identity[:8]}")
            assert told.labels == {"number": str(number)}
            assert (told.image, told.image_id) == ("localhost/bb:1", "sha256:" + "4" * 64)
            assert (told.restart_count, told.unknown) == (number, ("image_digest",))
        assert row(path, IDS[-1]) == row(path, "") == {}


def test_rows_that_are_in_the_log_only(tmp_path: Path) -> None:
    """Nothing of this container is in db.sql yet."""
    path = tmp_path / "db.sql"
    with database(path, "wal") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = path.read_bytes()
        connection.execute("PRAGMA wal_autocheckpoint=0")
        insert = "INSERT INTO ContainerConfig VALUES (?, 'last', NULL, ?)"
        connection.execute(insert, (IDS[-1], config(IDS[-1])))
        assert path.read_bytes() == before
        assert known(path, IDS[-1]).labels == {"number": str(len(IDS) - 1)}
        connection.execute("DELETE FROM ContainerConfig WHERE ID = ?", (IDS[-1],))
        assert row(path, IDS[-1]) == {}


@pytest.mark.parametrize("mode", MODES)
def test_a_transaction_that_has_not_ended(tmp_path: Path, mode: str) -> None:
    """Half of it is written already: the cache is too small."""
    path = tmp_path / "db.sql"
    with database(path, mode) as connection:
        size = path.stat().st_size
        connection.execute("PRAGMA cache_size=3")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute('UPDATE ContainerConfig SET JSON = \'{"id": ""}\' || JSON || JSON')
        log = tmp_path / "db.sql-wal"
        assert path.stat().st_size > size or (mode == "wal" and log.stat().st_size > size)
        assert [known(path, each).labels for each in IDS[:-1]] == [
            {"number": str(number)} for number in range(len(IDS) - 1)
        ]
        connection.execute("COMMIT")
        assert known(path, IDS[0]).engine is None


def test_a_crashed_transaction_is_as_if_it_never_was(tmp_path: Path) -> None:
    """Its journal stays until the next one opens the database."""
    path, copy = tmp_path / "db.sql", tmp_path / "copy"
    copy.mkdir()
    with database(path) as connection:
        connection.execute("PRAGMA cache_size=3")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE ContainerConfig SET JSON = JSON || 'junk'")
        for name in ("db.sql", "db.sql-journal"):
            (copy / name).write_bytes((tmp_path / name).read_bytes())
        connection.execute("ROLLBACK")
    assert known(copy / "db.sql", IDS[0]).labels == {"number": "0"}


@pytest.mark.parametrize("mode", MODES)
def test_while_another_writes(tmp_path: Path, mode: str) -> None:
    """Each answer is of one commit: both halves of the row were written by the same one."""
    path, done = tmp_path / "db.sql", threading.Event()
    identity = IDS[40]  # on overflow pages
    with database(path, mode) as connection:
        connection.execute("PRAGMA synchronous=OFF")

        def write() -> None:
            number = 0
            while not done.is_set():
                number += 1
                text = config(identity, first=number, spec="x" * (number % 7 * 9000), last=number)
                connection.execute("UPDATE ContainerConfig SET JSON = ? WHERE ID = ?", (text, identity))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            answers = [row(path, identity) for _ in range(100)]
        finally:
            done.set()
            writer.join()
    found = [json.loads(answer["JSON"]) for answer in answers if answer]
    assert found and all(each.get("first") == each.get("last") for each in found)
    assert answers.count({}) == 0  # never "there is no such row"


def test_it_is_neither_locked_nor_written(tmp_path: Path) -> None:
    path = tmp_path / "db.sql"
    with database(path) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert known(path, IDS[3]).labels == {"number": "3"}
        connection.execute("COMMIT")
    assert [each.name for each in tmp_path.iterdir()] == ["db.sql"]


def test_an_upgraded_table_without_the_index(tmp_path: Path) -> None:
    path = tmp_path / "db.sql"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE ContainerConfig (ID TEXT, JSON TEXT)")
        connection.commit()
    assert row(path, IDS[0]) == {}


@pytest.mark.parametrize(
    "data", [b"", b"SQLite format 3\0", b"SQLite format 3\0" + b"\0" * 5000, b"x" * 5000]
)
def test_what_is_no_database(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "db.sql").write_bytes(data)
    assert row(tmp_path / "db.sql", IDS[0]) is None


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of a database in each mode, in the middle of a transaction."""
    found = {}
    for mode in ("delete", "wal"):
        path = tmp_path_factory.mktemp(mode) / "db.sql"
        with database(path, mode) as connection:
            connection.execute("PRAGMA cache_size=3")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE ContainerConfig SET JSON = JSON || JSON")
            found[mode] = {f"{STORAGE}/{each.name}": each.read_bytes() for each in path.parent.iterdir()}
    return found


@given(
    st.sampled_from(["delete", "wal"]),
    st.lists(st.tuples(st.integers(0, 10**7), st.binary(min_size=1, max_size=6)), max_size=300),
)
def test_damage_does_no_harm(
    real: dict[str, dict[str, bytes]], mode: str, damage: list[tuple[int, bytes]]
) -> None:
    tree = {}
    for path, data in real[mode].items():
        broken = bytearray(data)
        for at, junk in damage:
            broken[at % max(len(data), 1) : at % max(len(data), 1) + len(junk)] = junk
        tree[path] = bytes(broken)
    container = Container(id=IDS[30], bundle=f"{STORAGE}/overlay-containers/{IDS[30]}/userdata")
    identify(container, "/run/runc", EngineFiles(tree), list)  # raises nothing, and comes to an end


def test_a_log_that_is_not_written_in_full(tmp_path: Path) -> None:
    path = tmp_path / "db.sql"
    with database(path, "wal"):
        log = bytearray((tmp_path / "db.sql-wal").read_bytes())
        frame = len(log) - 4096 - 24
        page = int.from_bytes(log[frame : frame + 4], "big")
        log[-1] ^= 1
        pages = Pages(lambda offset, size: path.read_bytes()[offset : offset + size], lambda _: bytes(log))
        with pytest.raises(SqliteError, match="in full"):
            pages[page]
