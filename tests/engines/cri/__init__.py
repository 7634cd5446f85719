"""The Container Runtime Interface, spoken as the kubelet does: gRPC on containerd's socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tests.kernel.support import PATIENCE

NAMESPACE = "startgate-tests"
"""The Kubernetes namespace of all pods."""

# grpcio-tools compiles cri.proto here, with no generated file to keep; path as seen from sys.path.
messages, services = grpc.protos_and_services("tests/engines/cri/cri.proto")


@dataclass(frozen=True)
class Cri:
    """A client. Its methods are CRI's; they raise grpc.RpcError with the runtime's own message."""

    channel: grpc.Channel
    logs: Path
    cgroup: str
    """The parent of all pods' cgroups."""

    def run_pod(
        self, name: str, *, network: str = "POD", pid: str = "CONTAINER", privileged: bool = False
    ) -> Pod:
        """RunPodSandbox; `network` and `pid` are NamespaceModes."""
        context = {"namespace_options": {"network": network, "pid": pid}, "privileged": privileged}
        config = {
            "metadata": {"name": name, "uid": f"uid-of-{name}", "namespace": NAMESPACE},
            "hostname": name,
            "log_directory": str(self.logs),
            "labels": {"app": name},
            "annotations": {"purpose": "test"},
            "linux": {"cgroup_parent": self.cgroup, "security_context": context},
        }
        if network == "NODE":
            del config["hostname"]  # as the kubelet does: the host's own serves
        answer = self.call("RunPodSandbox", "RunPodSandboxRequest", config=config)
        return Pod(self, answer.id, name, config)

    def exec_sync(self, container: str, *command: str) -> tuple[int, str]:
        """ExecSync; return the exit code, and what it wrote to stdout."""
        answer = self.call(
            "ExecSync", "ExecSyncRequest", container_id=container, cmd=command, timeout=int(PATIENCE)
        )
        return answer.exit_code, answer.stdout.decode()

    def start(self, container: str) -> None:
        """StartContainer."""
        self.call("StartContainer", "ContainerId", id=container)

    def stop(self, container: str, timeout: int = 0) -> None:
        """StopContainer: SIGTERM, and SIGKILL after `timeout` seconds; 0: SIGKILL at once."""
        self.call("StopContainer", "StopContainerRequest", container_id=container, timeout=timeout)

    def remove(self, container: str) -> None:
        """RemoveContainer."""
        self.call("RemoveContainer", "ContainerId", id=container)

    def status(self, container: str) -> Any:
        """ContainerStatus."""
        return self.call("ContainerStatus", "ContainerId", id=container).status

    def has_image(self, image: str) -> bool:
        """ImageStatus: the CRI plugin knows the image."""
        answer = self.call("ImageStatus", "ImageStatusRequest", "ImageService", image={"image": image})
        return bool(answer.HasField("image"))

    def list(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """ListPodSandbox and ListContainers: pods and containers by their ids."""
        pods = self.call("ListPodSandbox", "Empty").items
        containers = self.call("ListContainers", "Empty").containers
        return {pod.id: pod for pod in pods}, {container.id: container for container in containers}

    def call(self, method: str, request: str, service: str = "RuntimeService", **fields: Any) -> Any:
        """Call a method with a message made of `fields`."""
        stub = getattr(services, f"{service}Stub")(self.channel)
        message = getattr(messages, request)(**fields)
        return getattr(stub, method)(message, timeout=PATIENCE * 3)


@dataclass(frozen=True)
class Pod:
    """A pod: a sandbox, and what its containers' requests repeat of it."""

    cri: Cri
    id: str
    name: str
    config: Mapping[str, Any]

    def create(
        self,
        name: str,
        image: str,
        command: Sequence[str],
        *,
        attempt: int = 0,
        privileged: bool = False,
        typed: str = "",
    ) -> str:
        """CreateContainer; return its id. `typed` is what the pod says where `image` is an id."""
        linux = self.config["linux"]["security_context"]
        context = {"privileged": privileged, "namespace_options": linux["namespace_options"]}
        config = {
            "metadata": {"name": name, "attempt": attempt},
            "image": {"image": image, "user_specified_image": typed},
            "command": command,
            "labels": {"io.kubernetes.container.name": name},
            "log_path": f"{self.name}-{name}-{attempt}.log",
            "linux": {"security_context": context},
        }
        answer = self.cri.call(
            "CreateContainer",
            "CreateContainerRequest",
            pod_sandbox_id=self.id,
            config=config,
            sandbox_config=self.config,
        )
        return str(answer.id)

    def stop(self) -> None:
        """StopPodSandbox: ends all its containers."""
        self.cri.call("StopPodSandbox", "PodSandboxId", id=self.id)

    def remove(self) -> None:
        """RemovePodSandbox, with all its containers."""
        self.cri.call("RemovePodSandbox", "PodSandboxId", id=self.id)
