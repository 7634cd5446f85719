"""A FUSE server that shows a directory, read-only, and stops answering when told: no library needed.

``python fuse_server.py SOURCE MOUNTPOINT``: prints "ready" when mounted; after SIGUSR1 no file can
be opened any more, for ever, after SIGUSR2 nothing at all is answered; its end unmounts.
Structures: <linux/fuse.h>, protocol 7.31.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Callable

HEADER = struct.Struct("=IIQQIIII")
REPLY = struct.Struct("=IiQ")
ATTR = struct.Struct("=QQQQQQIIIIIIIIII")
FOREVER = 3600

paths = {1: ""}
nodes = {"": 1}
source = sys.argv[1] if len(sys.argv) > 1 else ""
hanging = False
mute = False


def real(node: int) -> str:
    return os.path.join(source, paths[node])


def attr(path: str) -> bytes:
    s = os.lstat(path)
    sizes = (s.st_ino, s.st_size, s.st_blocks)
    times = (0,) * 6
    return ATTR.pack(*sizes, *times, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, 0, 4096, 0)


def init(node: int, body: bytes) -> bytes:
    return struct.pack("=IIIIHHII", 7, 31, 65536, 0, 12, 9, 65536, 1).ljust(64, b"\0")


def lookup(node: int, body: bytes) -> bytes:
    path = os.path.join(paths[node], os.fsdecode(body.rstrip(b"\0")))
    attributes = attr(os.path.join(source, path))
    child = nodes.setdefault(path, len(nodes) + 1)
    paths[child] = path
    return struct.pack("=QQQQII", child, 0, FOREVER, FOREVER, 0, 0) + attributes


def getattr_(node: int, body: bytes) -> bytes:
    return struct.pack("=QII", FOREVER, 0, 0) + attr(real(node))


def readlink(node: int, body: bytes) -> bytes:
    return os.fsencode(os.readlink(real(node)))


def open_(node: int, body: bytes) -> bytes:
    return bytes(16)


def read(node: int, body: bytes) -> bytes:
    _, offset, size = struct.unpack_from("=QQI", body)
    with open(real(node), "rb") as file:
        return os.pread(file.fileno(), size, offset)


def readdir(node: int, body: bytes) -> bytes:
    _, offset, size = struct.unpack_from("=QQI", body)
    listed = b""
    names = sorted(os.listdir(real(node)))
    for number, name in list(enumerate(names, 1))[offset:]:
        mode = os.lstat(os.path.join(real(node), name)).st_mode
        entry = struct.pack("=QQII", number, number, len(os.fsencode(name)), stat.S_IFMT(mode) >> 12)
        entry += os.fsencode(name)
        entry += bytes(-len(entry) % 8)
        if len(listed) + len(entry) > size:
            break
        listed += entry
    return listed


def statfs(node: int, body: bytes) -> bytes:
    return struct.pack("=QQQQQIII", 0, 0, 0, 0, 0, 4096, 255, 4096).ljust(80, b"\0")


def nothing(node: int, body: bytes) -> bytes:
    return b""


OPERATIONS: dict[int, Callable[[int, bytes], bytes]] = {
    1: lookup,
    3: getattr_,
    5: readlink,
    14: open_,
    15: read,
    17: statfs,
    18: nothing,
    25: nothing,
    26: init,
    27: open_,
    28: readdir,
    29: nothing,
}
OPEN = 14
UNANSWERED = (2, 36, 42)  # FORGET, INTERRUPT, BATCH_FORGET


def serve(fd: int) -> None:
    while True:
        try:
            request = os.read(fd, 1 << 20)
        except OSError:  # unmounted
            return
        _, operation, unique, node, *_ = HEADER.unpack_from(request)
        if operation in UNANSWERED or mute or (hanging and operation == OPEN):
            continue
        error, answer = 0, b""
        try:
            answer = OPERATIONS[operation](node, request[HEADER.size :])
        except KeyError:
            error = errno.ENOSYS
        except OSError as failed:
            error = failed.errno or errno.EIO
        os.write(fd, REPLY.pack(REPLY.size + len(answer), -error, unique) + answer)
        if operation == 26:
            say("ready")


def say(word: str) -> None:
    """Not by print: a signal handler that interrupts it must not use it, too."""
    os.write(1, f"{word}\n".encode())


def main() -> None:
    def hang(number: int, frame: object) -> None:
        global hanging, mute
        hanging, mute = True, number == signal.SIGUSR2
        say("hanging")

    signal.signal(signal.SIGUSR1, hang)
    signal.signal(signal.SIGUSR2, hang)
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"ro,allow_other,fd={fd},rootmode=40000,user_id=0,group_id=0"
    subprocess.run(
        ["mount", "-i", "-t", "fuse", "-o", options, "test", sys.argv[2]], pass_fds=[fd], check=True
    )
    serve(fd)


if __name__ == "__main__":
    main()
