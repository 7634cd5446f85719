from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from startgate.errors import KernelUnsupported
from startgate.kernel import features, files


def kernel_threads(root: Path, comm: str = "kthreadd\n") -> Path:
    (root / "proc/2").mkdir(parents=True)
    (root / "proc/2/comm").write_text(comm)
    return root


def test_only_the_hosts_proc_has_kernel_threads(tmp_path: Path) -> None:
    assert not features.is_host_proc(str(tmp_path / "proc"))
    kernel_threads(tmp_path)
    assert features.is_host_proc(str(tmp_path / "proc"))
    assert not features.is_host_proc(str(kernel_threads(tmp_path / "other", "sh\n") / "proc"))


def test_the_hosts_root_is_good(tmp_path: Path) -> None:
    features.check_host_root(str(kernel_threads(tmp_path)))


@pytest.mark.parametrize(
    ("initial", "said"), [(True, "proc is not the host's /proc: --host-root"), (False, "STARTGATE_HOST_ROOT")]
)
def test_another_root_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, initial: bool, said: str
) -> None:
    monkeypatch.setattr(features, "in_initial_pid_namespace", lambda: initial)
    with pytest.raises(KernelUnsupported, match=said):
        features.check_host_root(str(tmp_path))


def test_without_openat2_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*arguments: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "readlink", lambda path: "/")
    features.check_other_processes("/")
    monkeypatch.setattr(files, "open_in_root", denied)
    with pytest.raises(KernelUnsupported, match=r"openat2.*Function not implemented"):
        features.check_other_processes("/")
