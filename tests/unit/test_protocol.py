"""native/keeper/protocol.h is the only definition of what is said: the mirror must not drift from it."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.keeper import protocol
from startgate.keeper.protocol import Control, Expired, Gap, Held, Op, Owed, Ping, Said, Welcome

KEEPER = Path(__file__).parent.parent.parent / "native/keeper"
STRUCTS = {
    "to_worker": (protocol.MESSAGE, "type id pid flags mask since due record path"),
    "to_keeper": (protocol.REPLY, "ops id response pid extend_ms settling owed unused"),
    "mark_request": (protocol.MARK, "mask flags unused"),
    "mark_reply": (protocol.MARKED, "error"),
    "control": (protocol.CONTROL, "what value"),
}
PREFIXES: dict[object, str] = {Owed: "OWED_"}


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What a C compiler makes of protocol.h."""
    compiler = shutil.which("cc") or shutil.which("clang")
    assert compiler, "a C compiler is needed: apt-get install gcc"
    wanted = [f"sizeof(struct {name})" for name in STRUCTS]
    wanted += [f"offsetof(struct {n}, {f})" for n, (_, fields) in STRUCTS.items() for f in fields.split()]
    wanted += [PREFIXES.get(type(m), "") + m.name for e in (Said, Op, Control, Owed) for m in e if m.name]
    wanted += ["KEEPER_PROTOCOL", "AGAIN", "DENIES"]
    lines = "".join(f'printf("%s=%d\\n", "{what}", (int)({what}));' for what in wanted)
    program = f'#include <stddef.h>\n#include <stdio.h>\n#include "protocol.h"\nint main(void) {{ {lines} }}'
    output = tmp_path_factory.mktemp("protocol") / "protocol"
    command = [compiler, "-Wall", "-Werror", f"-I{KEEPER}", "-xc", "-", "-o", str(output)]
    subprocess.run(command, input=program, text=True, check=True)
    told = subprocess.run([output], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in (line.split("=") for line in told.splitlines())}


@pytest.mark.parametrize("name", STRUCTS)
def test_structs(header: dict[str, int], name: str) -> None:
    form, fields = STRUCTS[name]
    assert form.size == header[f"sizeof(struct {name})"]
    codes = form.format.lstrip("=")
    offsets = [struct.calcsize("=" + codes[:index]) for index in range(len(codes))]
    assert offsets == [header[f"offsetof(struct {name}, {field})"] for field in fields.split()]


@pytest.mark.parametrize("kind", [Said, Op, Control, Owed])
def test_numbers(header: dict[str, int], kind: type[Said | Op | Control | Owed]) -> None:
    for member in kind:
        assert member == header[PREFIXES.get(kind, "") + str(member.name)]
    assert header["KEEPER_PROTOCOL"] == protocol.VERSION
    assert (header["AGAIN"], header["DENIES"]) == (protocol._AGAIN, protocol._DENIES)


def message(kind: int, *, number: int = 0, flags: int = 0, record: bytes = b"", path: bytes = b"") -> bytes:
    head = protocol.MESSAGE.pack(kind, number, 42, flags, 7, 8, 9, len(record), len(path))
    return head + record + path


def test_each_message() -> None:
    data = message(Said.HOLD, number=5, flags=3, record=b"abc", path=b"/usr/sbin/run\xff")
    held = Held(5, 42, 7, 8, 9, True, True, b"abc", "/usr/sbin/run\udcff", fd=3)
    assert protocol.decode(data, 3) == held
    assert protocol.decode(message(Said.EXPIRED, number=5, flags=2)) == Expired(5, True)
    assert protocol.decode(message(Said.GAP, number=5)) == Gap(5)
    assert protocol.decode(message(Said.PING)) == Ping()
    assert protocol.decode(message(Said.WELCOME)) == Welcome()


@given(st.binary(max_size=200))
def test_junk_is_an_error(data: bytes) -> None:
    try:
        protocol.decode(data)
    except ValueError as error:
        assert str(error)
