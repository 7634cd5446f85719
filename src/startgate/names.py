"""What people call a container: the engine's name for it, or where it is in Kubernetes."""

from __future__ import annotations

from startgate.events import Container


def shown(container: Container) -> str:
    """Return ``namespace/pod/container``, ``namespace/pod`` of a sandbox; else its name, or its id.

    In a pod its own name alone (``app``) is that of others, too.
    """
    pod = container.kubernetes
    if pod is None or not pod.pod:
        return container.name or container.id
    return "/".join(part for part in (pod.namespace, pod.pod, pod.container) if part)


def is_meant(container: Container, wanted: str) -> bool:
    """Is it its id, its name, or ``pod/container``, ``namespace/pod/container``?"""
    if wanted in (container.id, container.name):
        return True
    return "/" in wanted and f"/{shown(container)}".endswith(f"/{wanted}")


def is_sandbox(container: Container) -> bool:
    """Does it only keep a pod's namespaces (a pause container)?"""
    pod = container.kubernetes
    return pod is not None and pod.container_type == "sandbox"
