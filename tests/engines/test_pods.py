"""Podman's pods: an infra container, and containers that share its namespaces."""

from __future__ import annotations

from tests.engines.image import program
from tests.engines.observe import Record, check, observing
from tests.engines.podman import Podman


def test_a_pod(podman: Podman, name: str, record_property: Record) -> None:
    """Both are held, the infra container too, and each has its own name.

    The pod has no cgroup: on cgroup v2, without systemd, Podman's denies all devices to its containers.
    """
    pod = f"{name}-pod"
    infra_options = ("--infra-command", "/bin/infra", "--share-parent=false")
    with observing(podman) as observed:
        podman("pod", "create", "--name", pod, *podman.options, *infra_options)
        done = podman.run(name, *program(47), given=("--pod", pod))
        assert done.returncode == 47, done.stderr
        listed = check(podman, observed, name, "run in a pod", record_property)
        assert listed.exit_code == 47 and listed.pod
        infra = podman.find(listed.pod)
        podman("pod", "rm", "--force", "--time", "10", pod)
        kinds = [event.type for event in observed.events(infra.id)]
    assert kinds == ["creating", "created", "stopped"]
    first = observed.watched.wait_for("created", infra.id)
    assert first.container and first.container.name == infra.name
