"""Images in an archive as `ctr images import` takes it: the OCI image layout, in a tar file.

Blobs are named by their digest; index.json names the images' manifests.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MEDIA = "application/vnd.oci.image."
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write(path: Path, layer: bytes, images: Mapping[str, Sequence[str]]) -> None:
    """Write an archive of `images`: name to command. All have one layer, a tar file."""
    with tarfile.open(path, "w") as archive:
        blobs = _Blobs(archive)
        layer_blob = blobs.add("layer.v1.tar", layer)
        manifests = []
        for name, command in images.items():
            config = blobs.add("config.v1+json", _encode(_config(command, layer_blob["digest"])))
            manifest = {"schemaVersion": 2, "config": config, "layers": [layer_blob]}
            entry = blobs.add("manifest.v1+json", _encode(manifest))
            manifests.append(entry | {"annotations": {"io.containerd.image.name": name}})
        blobs.file("index.json", _encode({"schemaVersion": 2, "manifests": manifests}))
        blobs.file("oci-layout", _encode({"imageLayoutVersion": "1.0.0"}))


@dataclass
class _Blobs:
    archive: tarfile.TarFile

    def add(self, kind: str, content: bytes) -> dict[str, Any]:
        """Write a blob; return its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        self.file(f"blobs/sha256/{digest}", content)
        return {"mediaType": f"{_MEDIA}{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    def file(self, name: str, content: bytes) -> None:
        """Write a file."""
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        self.archive.addfile(entry, io.BytesIO(content))


def _config(command: Sequence[str], layer: str) -> dict[str, Any]:
    return {
        "architecture": _ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    }


def _encode(document: object) -> bytes:
    return json.dumps(document).encode()
