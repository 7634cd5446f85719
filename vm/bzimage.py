"""The kernel proper inside a bzImage: QEMU starts it directly, by PVH.

That spares the guest the decompression, which takes seconds without KVM. Field offsets are
those of the boot protocol, Documentation/arch/x86/boot.rst.
"""

from __future__ import annotations

import lzma
import struct
import subprocess
import zlib

_SETUP_SECTS = 0x1F1
_MAGIC = 0x202
_PAYLOAD = 0x248  # payload_offset, payload_length


def vmlinux(image: bytes) -> bytes:
    """Return the ELF file in `image`. Raises ValueError when there is none."""
    if image[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise ValueError("not a bzImage")
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = (image[_SETUP_SECTS] + 1) * 512 + offset
    elf = _decompress(image[start : start + length])
    if not elf.startswith(b"\x7fELF"):
        raise ValueError("the bzImage's payload is no ELF file")
    return elf


def _decompress(payload: bytes) -> bytes:
    """The stream's own end counts: the unpacked size follows it in the payload."""
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(["zstd", "-dcq"], input=payload[:-4], stdout=subprocess.PIPE, check=True).stdout
    raise ValueError(f"the bzImage is compressed in a way not known here: {payload[:6]!r}")
