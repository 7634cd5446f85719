from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.events import Deny, Note
from startgate.kernel.capabilities import CAPABILITIES
from startgate.policy.patch import AddMount, Patch, PatchError, apply_all, capability, pointer
from startgate.policy.schema import InvalidChange

Document = dict[str, Any]
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
SECCOMP = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_ERRNO"}]}


def bundle(**more: Any) -> Document:
    process = {
        "cwd": "/",
        "args": ["sh"],
        "env": ["PATH=/bin", "A=1"],
        "capabilities": {kind: ["CAP_KILL", "CAP_CHOWN"] for kind in SETS[:3]},
        "user": {"uid": 0, "gid": 0},
    }
    return {"ociVersion": "1.0.2", "process": process, "root": {"path": "rootfs"}, "linux": {}} | more


def changed(patch: Patch, document: Document | None = None) -> Document:
    """Apply a patch; return the document, once it is sure that the operations say the same."""
    before = document or bundle()
    given = copy.deepcopy(before)
    after, operations = patch.apply(before)
    assert before == given
    assert jsonpatch.apply_patch(before, operations) == after
    assert patch.apply(after) == (after, []), "made again, it changes something"
    return after


def test_all_capabilities_are_dropped() -> None:
    after = changed(Patch(drop_capabilities=("ALL",)))
    assert after["process"]["capabilities"] == {kind: [] for kind in SETS[:3]}


@pytest.mark.parametrize("name", ["CAP_KILL", "KILL", "kill", "cap_kill"])
def test_one_capability_is_dropped(name: str) -> None:
    after = changed(Patch(drop_capabilities=(name,)))
    assert after["process"]["capabilities"] == {kind: ["CAP_CHOWN"] for kind in SETS[:3]}


def test_dropping_what_is_not_there_changes_nothing() -> None:
    assert Patch(drop_capabilities=("BPF",)).apply(bundle()) == (bundle(), [])
    without = bundle(process={"cwd": "/"})
    assert Patch(drop_capabilities=("ALL",)).apply(without) == (without, [])


def test_variables_are_added_and_replaced() -> None:
    after = changed(Patch(add_env={"A": "2", "B": "x=y"}))
    assert after["process"]["env"] == ["PATH=/bin", "A=2", "B=x=y"]
    assert changed(Patch(add_env={"B": ""}), bundle(process={"cwd": "/"}))["process"]["env"] == ["B="]


def test_switches() -> None:
    after = changed(Patch(read_only_rootfs=True, no_new_privileges=True))
    assert after["root"] == {"path": "rootfs", "readonly": True}
    assert after["process"]["noNewPrivileges"] is True


def test_seccomp() -> None:
    assert changed(Patch(seccomp=SECCOMP))["linux"]["seccomp"] == SECCOMP
    assert changed(Patch(seccomp=SECCOMP), bundle(linux={"seccomp": {"defaultAction": "X"}}))["linux"] == {
        "seccomp": SECCOMP
    }


@pytest.mark.parametrize(
    ("before", "limit", "after"),
    [
        (None, "1M", 1 << 20),
        (0, "1M", 1 << 20),
        (-1, "1M", 1 << 20),
        (2 << 20, "1MiB", 1 << 20),
        (1 << 10, "1M", 1 << 10),
        (None, 4096, 4096),
        (None, "2g", 2 << 30),
    ],
)
def test_a_memory_limit_is_only_ever_lowered(before: int | None, limit: int | str, after: int) -> None:
    memory = {} if before is None else {"memory": {"limit": before, "reservation": before}}
    document = changed(Patch(memory=limit), bundle(linux={"resources": memory}))
    assert document["linux"]["resources"]["memory"]["limit"] == after
    assert document["linux"]["resources"]["memory"].get("reservation", 0) <= after


def test_a_limit_of_processes() -> None:
    assert changed(Patch(pids=9))["linux"]["resources"] == {"pids": {"limit": 9}}
    low = bundle(linux={"resources": {"pids": {"limit": 3}}})
    assert changed(Patch(pids=9), low) == low


def test_mounts_and_annotations() -> None:
    mount = AddMount("/etc/ca", "/etc/ssl")
    after = changed(Patch(add_mount=(mount,), add_annotation={"a/b~c": "d"}))
    wanted = {"source": "/etc/ca", "destination": "/etc/ssl", "type": "bind", "options": ["rbind", "ro"]}
    assert after["mounts"] == [wanted]
    assert after["annotations"] == {"a/b~c": "d"}


def test_nulls_are_as_good_as_nothing() -> None:
    nulls = bundle(mounts=None, annotations=None, linux=None, root={"path": "r", "readonly": None})
    nulls["process"]["env"] = None
    patch = Patch(
        add_env={"A": "b"},
        read_only_rootfs=True,
        pids=1,
        add_mount=(AddMount("/a", "/b"),),
        add_annotation={"a": "b"},
    )
    assert changed(patch, nulls)["linux"] == {"resources": {"pids": {"limit": 1}}}


def test_json_patch() -> None:
    operations = (
        {"op": "test", "path": "/root/path", "value": "rootfs"},
        {"op": "add", "path": "/hostname", "value": "h"},
    )
    assert Patch(json_patch=operations).apply(bundle())[0] == bundle(hostname="h")


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/root/path", "value": "x"},
        {"op": "remove", "path": "/nope"},
        {"op": "replace", "path": "/process/args/7", "value": "x"},
        {"op": "add", "path": "/process/args", "value": "sh"},
        {"op": "add", "path": "/process/noNewPrivileges", "value": "yes"},
        {"op": "add", "path": "/process/user", "value": {"uid": -1}},
        {"op": "remove", "path": "/ociVersion"},
        {"op": "add", "path": "/linux/resources", "value": {"memory": {"limit": "1G"}}},
        {"op": "add", "path": "/linux/namespaces", "value": [{"type": "net"}]},
        {"op": "add", "path": "/mounts", "value": [{"source": "/a"}]},
        {"op": "replace", "path": "", "value": []},
    ],
)
def test_it_is_all_or_nothing(operation: Document) -> None:
    before = bundle()
    with pytest.raises(PatchError):
        Patch(drop_capabilities=("ALL",), pids=3, json_patch=(operation,)).apply(before)
    assert before == bundle()


@pytest.mark.parametrize(
    "document",
    [{}, {"process": []}, {"ociVersion": "1", "process": {"cwd": "/", "capabilities": 3}}, {"linux": "x"}],
)
def test_a_document_that_is_no_config(document: Document) -> None:
    with pytest.raises(PatchError):
        Patch(drop_capabilities=("ALL",), add_env={"A": "b"}, pids=3).apply(document)


def test_several_patches_each_as_a_whole() -> None:
    patches = [
        Patch(pids=3, rule="a", message="few"),
        Patch(pids=1, json_patch=({"op": "remove", "path": "/nope"},), rule="b"),
        Patch(read_only_rootfs=True, rule="c"),
    ]
    patched = apply_all(bundle(), patches)
    assert patched.document == bundle(
        root={"path": "rootfs", "readonly": True}, linux={"resources": {"pids": {"limit": 3}}}
    )
    assert patched.deny is None
    few, failed, root = patched.notes
    assert (few.message, few.rule, few.action, few.patch[-1]["path"]) == (
        "few",
        "a",
        "patch",
        "/linux/resources/pids/limit",
    )
    assert (failed.rule, failed.action, failed.patch) == ("b", "error", ())
    assert root == Note("changed", "c", "patch", ({"op": "add", "path": "/root/readonly", "value": True},))


def test_a_required_one_that_fails_refuses() -> None:
    patched = apply_all({}, [Patch(pids=3, rule="a", required=True)])
    assert patched.deny is not None
    assert patched.deny.rule == "a"
    assert patched.deny == Deny(patched.notes[0].message, "a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_capabilities": ("CAP_FLY",)}, "drop_capabilities: unknown: CAP_FLY"),
        ({"add_env": {"A=": "b"}}, "add_env: 'A=' is no name"),
        ({"memory": "0"}, "memory: '0' is no size"),
        ({"memory": "-1M"}, "memory: '-1M' is no size"),
        ({"pids": -1}, "pids: the limit must be positive"),
        ({"json_patch": ({"op": "add"},)}, "json_patch: "),
        ({"seccomp": {"archMap": []}}, "Docker's own form"),
        ({"seccomp": {"defaultAction": 3}}, "seccomp: Expected `str`"),
    ],
)
def test_what_can_be_applied_to_nothing(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidChange, match=message):
        Patch(**changes).check()


# The friendly forms are their JSON Patch, whatever they meet.

words = st.text("ABCab=/~é", min_size=1, max_size=3)
names = words.filter(lambda name: "=" not in name)
nullable: st.SearchStrategy[Any] = st.none() | st.just({})
documents = st.builds(
    lambda env, sets, linux, mounts, annotations, readonly: bundle(
        process={"cwd": "/", "env": env, "capabilities": sets},
        linux=linux,
        mounts=mounts,
        annotations=annotations,
        root={"path": "r"} | readonly,
    ),
    st.none() | st.lists(words, max_size=3),
    st.none()
    | st.dictionaries(st.sampled_from(SETS), st.none() | st.lists(st.sampled_from(CAPABILITIES), max_size=4)),
    nullable
    | st.fixed_dictionaries(
        {"resources": nullable | st.fixed_dictionaries({"pids": st.just({"limit": 4}), "memory": nullable})}
    ),
    st.none() | st.just([]) | st.just([{"destination": "/x"}]),
    st.none() | st.dictionaries(words, words, max_size=2),
    st.sampled_from([{}, {"readonly": None}, {"readonly": False}, {"readonly": True}]),
)
patches = st.builds(
    Patch,
    drop_capabilities=st.lists(st.sampled_from(["ALL", "KILL", *CAPABILITIES]), max_size=3).map(tuple),
    add_env=st.dictionaries(names, words, max_size=3),
    read_only_rootfs=st.booleans(),
    no_new_privileges=st.booleans(),
    seccomp=st.none() | st.just(SECCOMP),
    memory=st.none() | st.integers(1, 2**40) | st.just("3M"),
    pids=st.none() | st.integers(1, 100),
    add_mount=st.lists(st.builds(AddMount, source=words, destination=words), max_size=2).map(tuple),
    add_annotation=st.dictionaries(words, words, max_size=2),
)


@given(documents, patches)
def test_friendly_forms_are_their_json_patch(document: Document, patch: Patch) -> None:
    after = changed(patch, document)
    json.dumps(after)
    held = after["process"]["capabilities"] or {}
    dropped = {capability(name) for name in patch.drop_capabilities}
    for each in held.values():
        assert not set(each or ()) & dropped
        assert not (each and "ALL" in dropped)
    assert after["root"].get("readonly") or not patch.read_only_rootfs
    for name, value in patch.add_env.items():
        own = [entry for entry in after["process"]["env"] if entry.startswith(f"{name}=")]
        assert own == [f"{name}={value}"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | words,
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "process",
                        "linux",
                        "capabilities",
                        "env",
                        "root",
                        "resources",
                        "mounts",
                        "bounding",
                        "ociVersion",
                        "cwd",
                    ]
                ),
                x,
            )
        ),
    ),
    patches,
)
def test_any_document_is_changed_or_refused(document: Any, patch: Patch) -> None:
    before = copy.deepcopy(document)
    with contextlib.suppress(PatchError):
        patch.apply(document)
    assert document == before


def test_pointers() -> None:
    assert pointer("annotations", "a/b~c") == "/annotations/a~1b~0c"
