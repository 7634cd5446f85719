"""CRI as one of the tests' engines: pods and their containers, in containerd's namespace `k8s.io`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from startgate.events import Kubernetes
from tests.engines.containerd import CRI_NAMESPACE, IMAGE, PAUSE, Containerd
from tests.engines.cri import Cri
from tests.engines.engine import Listed
from tests.kernel.support import eventually


class CriEngine:
    """An Engine (see engine.py). Containers are named by their ids: names are a pod's affair."""

    reports = "containerd"

    def __init__(self, containerd: Containerd, client: Cri) -> None:
        self.containerd = containerd
        self.client = client
        self.directory = containerd.directory
        self.title = f"{containerd.title}, CRI"

    def containers(self) -> list[Listed]:
        """See Engine: sandboxes and containers."""
        return [self.find(identity) for listed in self.client.list() for identity in listed]

    def find(self, container: str) -> Listed:
        """Return one container or sandbox by its id, as CRI lists it."""
        pods, containers = self.client.list()
        told = pods.get(container) or containers[container]
        pod = container if container in pods else told.pod_sandbox_id
        image = PAUSE if container in pods else told.image.image
        code = self.containerd.exit_code(container, CRI_NAMESPACE)
        return Listed(
            id=container,
            name=told.metadata.name,
            image=image,
            exit_code=code,
            labels={**pods[pod].labels, **told.labels},
            pod=pod,
            running=code is None,
        )

    def kubernetes(self, container: str) -> Kubernetes:
        """Return what CRI lists of a container and its pod, as an event is to tell it."""
        pods, containers = self.client.list()
        told = containers.get(container)
        pod = pods[told.pod_sandbox_id if told else container]
        return Kubernetes(
            namespace=pod.metadata.namespace,
            pod=pod.metadata.name,
            pod_uid=pod.metadata.uid,
            container=told.metadata.name if told else None,
            sandbox_id=pod.id,
            container_type="container" if told else "sandbox",
            attempt=told.metadata.attempt if told else pod.metadata.attempt,
            annotations=dict(pod.annotations),
        )

    def output(self, container: str) -> str:
        """See Engine: the log file, without each line's time, stream and tag."""
        text = Path(self.client.status(container).log_path).read_text()
        return re.sub(r"(?m)^\S+ std(out|err) [FP] ", "", text)

    def started(self, since: float) -> Counter[str]:
        """Return how often each container was started since then."""
        return self.containerd.started(CRI_NAMESPACE, since)

    def stop(self) -> None:
        """Remove all pods."""
        for pod in self.client.list()[0]:
            self.client.call("StopPodSandbox", "PodSandboxId", id=pod)
            self.client.call("RemovePodSandbox", "PodSandboxId", id=pod)


@contextmanager
def connected(containerd: Containerd) -> Iterator[CriEngine]:
    """Speak to containerd's CRI plugin, once it knows the images."""
    logs = containerd.directory / "logs"
    logs.mkdir()
    with grpc.insecure_channel(f"unix://{containerd.socket}") as channel:
        client = Cri(channel, logs, f"/{containerd.pods_cgroup}")
        assert eventually(lambda: all(map(client.has_image, (IMAGE, PAUSE))))
        yield CriEngine(containerd, client)
