"""Names of images, as users type them and as they are in full."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.engines import reference

DIGEST = "sha256:" + "7" * 64


@pytest.mark.parametrize(
    ("typed", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/library/nginx:latest", "docker.io/library/nginx:latest"),
        ("team/app", "docker.io/team/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:2", "localhost:5000/app:2"),
        ("registry.corp/a/b/c", "registry.corp/a/b/c:latest"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("Registry/app", "Registry/app:latest"),
        ("[2001:db8::1]:5000/app", "[2001:db8::1]:5000/app:latest"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"ghcr.io/x/y:1@{DIGEST}", f"ghcr.io/x/y:1@{DIGEST}"),
        ("beef", "docker.io/library/beef:latest"),
        ("a__b/c--d.e", "docker.io/a__b/c--d.e:latest"),
        (DIGEST, None),
        ("7" * 64, None),
        ("", None),
        ("UPPER", None),
        ("a:", None),
        ("a b", None),
        ("a//b", None),
        ("/a", None),
        ("a\n", None),
        ("ä", None),
        ("x" * 600, None),
    ],
)
def test_full(typed: str, full: str | None) -> None:
    assert reference.full(typed) == full


@given(st.text() | st.from_regex(r"[a-z0-9.:/@_-]*", fullmatch=True))
def test_a_full_name_is_its_own(text: str) -> None:
    full = reference.full(text)
    assert full is None or reference.full(full) == full


def test_repository() -> None:
    assert reference.repository(f"ghcr.io/x/y:1@{DIGEST}") == "ghcr.io/x/y"
    assert reference.repository("docker.io/library/nginx:1") == "docker.io/library/nginx"


def test_ids() -> None:
    assert reference.may_be_id("777", DIGEST) and reference.may_be_id(DIGEST, "7" * 64)
    assert not reference.may_be_id("778", DIGEST) and not reference.may_be_id("nginx", DIGEST)
    assert (reference.digest_of("7" * 64), reference.digest_of(DIGEST)) == (DIGEST, DIGEST)
    assert (reference.digest_of(None), reference.digest_of("")) == (None, None)
