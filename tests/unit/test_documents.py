"""What the documents name is there."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from startgate import foreign
from startgate.cli.log import RateLimit
from startgate.events import Container, Event, Exit, Process
from startgate.gates.rootless import CONTAINERS, CONTAINERS_OF_ONE
from startgate.gates.turns import COMMANDS, COMMANDS_OF_ONE
from startgate.lifecycle import STARTING_LIMIT
from startgate.runtimes import oci

ROOT = Path(__file__).parent.parent.parent
SECURITY = (ROOT / "docs/security.md").read_text()
NAMED = sorted(set(re.findall(r"`(?:(unit/)?(test_\w+)\.py::)?(test_\w+)`", SECURITY)))


LINKS = [
    (document, link)
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
    for link in re.findall(r"\]\(([^)]+)\)", document.read_text())
    if "://" not in link
]


def headings(document: Path) -> list[str]:
    """Return the names by which headings are linked to."""
    found = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found]


def test_there_are_links() -> None:
    assert len(LINKS) > 10


@pytest.mark.parametrize(("document", "link"), LINKS, ids=lambda each: getattr(each, "name", each))
def test_what_is_linked_to_is_there(document: Path, link: str) -> None:
    path, _, heading = link.partition("#")
    target = document.parent / path if path else document
    assert target.exists()
    assert not heading or heading in headings(target)


def test_tests_are_named() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize(("folder", "module", "name"), NAMED)
def test_each_test_that_is_named_exists(folder: str, module: str, name: str) -> None:
    path = ROOT / "tests" / (folder or "kernel/") / f"{module or 'test_capabilities'}.py"
    assert re.search(rf"^def {name}\(", path.read_text(), re.MULTILINE)


def test_the_limits_are_those_of_the_code() -> None:
    assert f"{oci.CONFIG_LIMIT >> 20} MiB; {oci.PART_LIMIT >> 20} MiB for each" in SECURITY
    assert f"{oci.WORDS_LIMIT >> 20} MiB for environment and arguments" in SECURITY
    assert f"{foreign.TEXT:,} characters" in SECURITY
    assert f"{foreign.SIZE >> 10} Ki characters each ({foreign.OVERHEAD} more" in SECURITY
    assert f"{STARTING_LIMIT:,}, or a quarter" in SECURITY
    assert f"| {COMMANDS}, {COMMANDS_OF_ONE} of one uid; {CONTAINERS:,}, {CONTAINERS_OF_ONE} of" in SECURITY
    assert f"{RateLimit()._burst} in {RateLimit()._period:g} s" in SECURITY


WORKFLOW = (ROOT / ".github/workflows/check.yml").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def test_the_workflow_runs_what_ci_runs() -> None:
    assert ".ci/run" in WORKFLOW
    assert "exec make test" in (ROOT / ".ci/run").read_text()
    (stages,) = re.findall(r'STAGES="([^"]+)"', WORKFLOW)
    for target in ("root", "setup", "test-apt", "stages", *stages.split()):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_the_workflow_needs_no_secret_and_may_write_nothing() -> None:
    assert "secrets." not in WORKFLOW
    assert re.findall(r"^permissions:\n((?:  .*\n)+)", WORKFLOW, re.MULTILINE) == ["  contents: read\n"]


EVENTS = (ROOT / "docs/events.md").read_text()


@pytest.mark.parametrize("record", [Event, Container, Process, Exit])
def test_each_field_is_told_of(record: type[msgspec.Struct]) -> None:
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", EVENTS))))
    assert {field.encode_name for field in msgspec.structs.fields(record)} <= named
