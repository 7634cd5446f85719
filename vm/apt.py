"""Apt on suites of Debian for one architecture, apart from the machine's own lists and packages."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class FetchError(Exception):
    """Something can't be had; the message says what, and why."""


class Apt:
    """Apt with lists, cache and packages below a directory of its own."""

    def __init__(self, suites: Sequence[str], architecture: str, directory: Path) -> None:
        """Read the suites' lists; apt checks their signatures. Raises FetchError."""
        self._packages = directory / "packages"
        for name in ("lists/partial", "cache/archives/partial", "packages"):
            (directory / name).mkdir(parents=True)
        sources = directory / "sources.list"
        origin = f"deb [arch={architecture} signed-by={_keyring()}]"
        sources.write_text("".join(f"{origin} {mirror(suite)} {suite} main\n" for suite in suites))
        self._options = _options(directory, sources, architecture)
        self.call("apt-get", "update")

    def download(self, *names: str) -> list[Path]:
        """Download packages; apt checks their hashes."""
        self.call("apt-get", "download", *names)
        return sorted(self._packages.iterdir())

    def download_all(self, *names: str) -> list[Path]:
        """Download packages and all that they depend on."""
        self.call("apt-get", "install", "--yes", "--download-only", "--no-install-recommends", *names)
        return sorted((self._packages.parent / "cache/archives").glob("*.deb"))

    def call(self, program: str, *arguments: str) -> str:
        """Run a program of apt's; return what it prints."""
        return run(program, *self._options, *arguments, cwd=self._packages)


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command; return what it prints. Raises FetchError."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise FetchError(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise FetchError(f"{command[0]} failed: {error.stderr.strip() or error.returncode}") from error
    return done.stdout


def _options(directory: Path, sources: Path, architecture: str) -> list[str]:
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::Lists": directory / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": directory / "cache",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,  # without the machine's own
        "APT::Sandbox::User": "root",  # _apt may not enter our directory
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::AllowInsecureRepositories": "false",
        # A suite past its end of life is signed but no longer renewed.
        "Acquire::Check-Valid-Until": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        # An empty suite is an error for us, not a warning.
        "APT::Update::Error-Mode": "any",
    }
    return ["-qq", *(f"-o{name}={value}" for name, value in settings.items())]


def _keyring() -> Path:
    if not _KEYRING.exists():
        raise FetchError(f"{_KEYRING} is missing (apt-get install debian-archive-keyring)")
    return _KEYRING


def mirror(suite: str) -> str:
    """Return the address that the machine itself uses for suites of this kind."""
    security = suite.endswith("-security")
    chosen = os.environ.get("STARTGATE_MIRROR_SECURITY" if security else "STARTGATE_MIRROR")
    if chosen:
        return chosen
    label = "Debian-Security" if security else "Debian"
    targets = ("Created-By: Packages", f"Label: {label}")
    uris = run("apt-get", "indextargets", "--format", "$(REPO_URI)", *targets).split()
    if not uris:
        raise FetchError(f"apt has no {label} mirror: run apt-get update, or set STARTGATE_MIRROR[_SECURITY]")
    return uris[0]
