"""packaging/kubernetes against the schemas of Kubernetes, and against what the image's tests run it with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.image.test_image import CAPABILITIES

BASE = Path(__file__).parents[2] / "packaging/kubernetes"
yaml = pytest.importorskip("yaml", reason="pip install '.[packaging]'")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install '.[packaging]'")


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send; without kubectl, the files as they are."""
    if kubectl := shutil.which("kubectl"):
        text = subprocess.run(
            [kubectl, "kustomize", str(BASE)], check=True, capture_output=True, text=True
        ).stdout
        return list(yaml.safe_load_all(text))
    names = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    return [yaml.safe_load((BASE / name).read_text()) for name in names]


@pytest.mark.parametrize("version", ["1.30", "1.33", "1.37"])
def test_its_objects_are_what_kubernetes_takes(objects: list[dict[str, Any]], version: str) -> None:
    assert {"Namespace", "ServiceAccount", "NetworkPolicy", "DaemonSet"} <= {each["kind"] for each in objects}
    for each in objects:
        kubernetes_validate.validate(each, version, strict=True)


def test_a_misspelt_field_is_found(objects: list[dict[str, Any]]) -> None:
    (daemonset,) = (each for each in objects if each["kind"] == "DaemonSet")
    spec = daemonset["spec"] | {"updateStrateg": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(daemonset | {"spec": spec}, "1.37", strict=True)


def test_it_runs_as_the_images_tests_do(objects: list[dict[str, Any]]) -> None:
    (daemonset,) = (each for each in objects if each["kind"] == "DaemonSet")
    pod = daemonset["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert pod["hostPID"] and security["readOnlyRootFilesystem"] and "privileged" not in security
    assert security["capabilities"] == {"drop": ["ALL"], "add": list(CAPABILITIES)}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    mounted = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert mounted == {"/host": True, "/run": False, "/etc/startgate": True}
