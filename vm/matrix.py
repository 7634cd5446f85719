"""Runs the kernel tests on each kernel, and writes the support table from what they saw.

``python3 vm/matrix.py run 6.1 ...`` tests and keeps the results below build/kernels;
``python3 vm/matrix.py table`` writes the table of all kept results into docs/kernels.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build/kernels"
FOREIGN = ("6.1-arm64", "newest-arm64-16k")
KERNELS = ("5.10", "6.1", "6.12", "newest", *FOREIGN)
NATIVE = "native"
SLOWNESS = "15"
TIMEOUT = 2400
MARKERS = ("<!-- kernels: written by `make kernel-table` -->", "<!-- /kernels -->")

# What is told, and which tests show it: a pattern over "file::test[parameters]".
ROWS = {
    "held before the first instruction, every way, runc and crun": r"test_ways::test_it_is_held",
    "exec records: `table`": r"test_records::.*\[table\b|test_ways::test_every_exec.*\[table",
    "exec records: `queue` (kprobes)": r"test_records::.*\[queue\b|test_ways::test_every_exec.*\[queue",
    "exec records: `procfs` (no BPF)": r"test_records::.*\[procfs\b|test_ways::test_every_exec.*\[procfs",
    "exit codes of zombies, from /proc": r"test_exits::test_a_zombie",
    "exit codes of reaped processes, PIDFD_GET_INFO": r"test_exits::test_reaped_before",
    "exit codes of reaped processes, BPF": r"test_exits::test_the_bpf_program",
    "first exec held": r"test_ways::test_a_first_program",
    "from a child pid namespace and a container: `table`": r"test_pid_namespace::test_the_hosts.*\[table",
    "from a child pid namespace and a container: `queue`": r"test_pid_namespace::test_the_hosts.*\[queue",
}


# What this kernel and the development machine's differ in: kprobes, cgroup v2; and that it holds.
QUICK = "queue or oom or test_it_is_held"

LOAD = "test_records::test_in_step_under_load[{}]"


class Case(NamedTuple):
    """One test, how it went (passed, failed or skipped), and what it measured."""

    name: str
    outcome: str
    measured: str


def main() -> int:
    """Run the command line; the exit status is the tests'."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("kernels", nargs="*", default=KERNELS, help="default: all")
    parser.add_argument("--all", action="store_true", help="portable tests too: no kernel changes them")
    parser.add_argument("--quick", action="store_true", help="only what `make test` wants to know; not kept")
    given = parser.parse_args()
    if given.action == "table":
        write_table()
        return 0
    chosen = [] if given.all else ["-m", "not portable"]
    chosen += ["-k", QUICK] if given.quick else []
    statuses = [run(kernel, chosen, keep=not given.quick) for kernel in given.kernels]
    return max(statuses)


def run(kernel: str, chosen: list[str], *, keep: bool) -> int:
    """Run the tests that pytest's options `chosen` leave on a kernel; keep the results for the table."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    report = RESULTS / f"{kernel}.xml"
    tests = [".venv/bin/python", "-m", "pytest", "-q", "tests/kernel", "--tb=short", "--timeout=300"]
    tests += ["-p", "no:cacheprovider", *chosen]
    if keep:
        report.unlink(missing_ok=True)
        tests.append(f"--junitxml={report}")
    if kernel == NATIVE:
        return subprocess.run(tests, cwd=ROOT, check=False).returncode
    print(f"== kernel {kernel}", flush=True)
    if kernel in FOREIGN:  # the guest has a compiler of its own
        tests = ["sh", "-c", f"make -s -o apt keeper && {shlex.join(tests)}"]
    status = subprocess.run([*vm(kernel), *tests], cwd=ROOT, check=False).returncode
    if keep:
        release = subprocess.run(
            [*vm(kernel), "uname", "-r"], cwd=ROOT, check=False, capture_output=True, text=True
        )
        report.with_suffix(".release").write_text(release.stdout)
    return status


def vm(kernel: str) -> list[str]:
    """Return the command line that runs something on a kernel."""
    variables = [f"STARTGATE_TEST_SLOWNESS={SLOWNESS}", "STARTGATE_REQUIRE_KERNEL=1"]
    options = [option for variable in variables for option in ("--env", variable)]
    script = str(ROOT / "vm/vm.py")
    return [
        sys.executable,
        script,
        "run",
        kernel,
        "--rw",
        str(ROOT),
        "--timeout",
        str(TIMEOUT),
        *options,
        "--",
    ]


def read(report: Path) -> list[Case]:
    """Return the tests of a JUnit report."""
    cases = []
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        failed = kinds & {"failure", "error"}
        outcome = "failed" if failed else "skipped" if "skipped" in kinds else "passed"
        module = case.get("classname", "").rpartition(".")[2]
        measured = [p.get("value", "") for p in case.iter("property") if p.get("name") == "load"]
        cases.append(Case(f"{module}::{case.get('name')}", outcome, "".join(measured)))
    return cases


def cell(cases: list[Case], pattern: str) -> str:
    """Tell whether the tests of a row passed: all of those that were not skipped."""
    outcomes = {case.outcome for case in cases if re.match(pattern, case.name)}
    if "failed" in outcomes:
        return "**fails**"
    return "yes" if "passed" in outcomes else "no" if outcomes else "not run"


def table(results: dict[str, list[Case]]) -> str:
    """Return the table in Markdown: a column for each kernel."""
    lines = ["| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    for title, pattern in ROWS.items():
        cells = " | ".join(cell(cases, pattern) for cases in results.values())
        lines.append(f"| {title} | {cells} |")
    for source in ("table", "queue", "procfs"):
        name = LOAD.format(source)
        cells = " | ".join(
            next((c.measured for c in cases if c.name == name), "") or "-" for cases in results.values()
        )
        lines.append(f"| `{source}` under load: 16 runc commands at a time | {cells} |")
    for outcome in ("passed", "failed", "skipped"):
        counts = (str(sum(case.outcome == outcome for case in cases)) for cases in results.values())
        lines.append(f"| tests {outcome} | {' | '.join(counts)} |")
    return "\n".join(lines)


def write_table() -> None:
    """Put the table of all kept results between the markers in docs/kernels.md."""
    results = {
        title(k): read(RESULTS / f"{k}.xml") for k in (*KERNELS, NATIVE) if (RESULTS / f"{k}.xml").exists()
    }
    document = ROOT / "docs/kernels.md"
    before, rest = document.read_text().split(MARKERS[0])
    after = rest.split(MARKERS[1])[1]
    document.write_text(f"{before}{MARKERS[0]}\n{table(results)}\n{MARKERS[1]}{after}")


def title(kernel: str) -> str:
    """Return the release of a kernel that was tested."""
    release = RESULTS / f"{kernel}.release"
    if kernel == NATIVE:
        return f"{os.uname().release} (development machine)"
    return release.read_text().strip() if release.exists() else kernel


if __name__ == "__main__":
    sys.exit(main())
