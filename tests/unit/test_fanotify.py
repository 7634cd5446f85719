from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.kernel.fanotify import FAN_NOFD, FAN_OPEN_EXEC_PERM, FAN_Q_OVERFLOW, PermissionEvent, decode

# struct fanotify_event_metadata of <linux/fanotify.h>
SIZE = 24


def metadata(mask: int = FAN_OPEN_EXEC_PERM, fd: int = 7, pid: int = 42, version: int = 3) -> bytes:
    return struct.pack("=IBBHQii", SIZE, version, 0, SIZE, mask, fd, pid)


def test_an_event_is_decoded() -> None:
    assert decode(metadata()) == PermissionEvent(FAN_OPEN_EXEC_PERM, 7, 42)
    assert not decode(metadata()).overflow


def test_an_overflow_has_no_fd() -> None:
    event = decode(metadata(mask=FAN_Q_OVERFLOW, fd=-1, pid=0))
    assert event.overflow
    assert event.fd == FAN_NOFD


def test_another_version_of_the_format() -> None:
    with pytest.raises(ValueError, match="version 4"):
        decode(metadata(version=4))


@pytest.mark.parametrize("size", [0, 1, SIZE - 1])
def test_a_short_record(size: int) -> None:
    with pytest.raises(ValueError, match=f"of {size} bytes"):
        decode(metadata()[:size])


@given(st.binary(max_size=64) | st.binary(min_size=SIZE - 5).map(lambda rest: b"\x18\0\0\0\x03" + rest))
def test_junk_is_a_value_error_or_an_event(record: bytes) -> None:
    try:
        event = decode(record)
    except ValueError:
        assert len(record) < SIZE or record[4] != 3
    else:
        assert struct.pack("=Qii", event.mask, event.fd, event.pid) == record[8:SIZE]
