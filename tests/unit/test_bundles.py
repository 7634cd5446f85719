from __future__ import annotations

from pathlib import Path

import pytest

from startgate import bundles
from startgate.errors import StartgateError
from startgate.runtimes.oci import decode_config, rootfs_path
from startgate.testing import make_bundle, write_config


@pytest.fixture
def busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "busybox"
    path.write_text("#!")
    path.chmod(0o755)
    monkeypatch.setattr(bundles, "_BUSYBOX", ("/nope/busybox", str(path)))
    return path


def test_a_bundle_has_a_config_and_a_root_file_system(busybox: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", ["/bin/sh", "-c", "true"], hostname="web")
    config = decode_config((bundle / "config.json").read_bytes())
    assert config.process is not None
    assert (config.process.args, config.hostname) == (("/bin/sh", "-c", "true"), "web")
    shell = Path(rootfs_path(str(bundle), config), "bin/sh")
    assert shell.samefile(bundle / "rootfs/bin/busybox")


def test_parts_of_the_config_may_be_replaced(tmp_path: Path) -> None:
    write_config(tmp_path, None, config={"annotations": {"a": "b"}, "mounts": []})
    config = decode_config((tmp_path / "config.json").read_bytes())
    assert (config.annotations, config.mounts) == ({"a": "b"}, ())
    assert config.process is not None
    assert config.process.args is None


def test_without_busybox_there_is_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "_BUSYBOX", ("/nope/busybox",))
    with pytest.raises(StartgateError, match="busybox is not installed"):
        make_bundle(tmp_path / "bundle", ["true"])
    assert not (tmp_path / "bundle").exists()
