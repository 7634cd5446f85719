from __future__ import annotations

from pathlib import Path

import pytest

from startgate.errors import KernelUnsupported
from startgate.kernel import features


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
