"""What `install` puts in place: unit, group, configuration, completions, manual page of this startgate."""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

import startgate
from startgate.errors import StartgateError
from startgate.foreign import one_line
from startgate.install import Placed, Placement, Step

_GROUP = "startgate"
_RECORD = "share/startgate/installed.json"
_UNIT = "startgate.service"
_AGENT = "startgate-agent.service"


def put(root: str, prefix: str, program: str | None, *, dry_run: bool) -> None:
    """Put all in place, and tell of each thing. Raises StartgateError, OSError."""
    place = Placement(root, f"{prefix}/{_RECORD}")
    wanted = list(_files(prefix, program or _this_program()))
    host = _is_host(root)
    new_group = host and not _has_group()
    _tell(place.steps(wanted), dry_run)
    if new_group:
        _say("make", f"the group {_GROUP}", dry_run)
    if dry_run:
        return
    place.put(wanted, startgate.__version__)
    if new_group:
        _run("groupadd", "--system", _GROUP)
        place.record.group = _GROUP
        place.save()
    if host:
        _reload_systemd()
        sys.stdout.write(f"to start it, now and at boot: systemctl enable --now {_UNIT}\n")


def take_away(root: str, prefix: str, *, purge: bool, dry_run: bool) -> None:
    """Take away what `put` made, and tell of each thing. Raises StartgateError, OSError."""
    place = Placement(root, f"{prefix}/{_RECORD}")
    if not place.record.version:
        raise StartgateError(f"nothing was installed with --root {root} --prefix {prefix}")
    host = _is_host(root)
    if host and not dry_run:
        _refuse_while_used()
    _tell(place.removals(purge=purge), dry_run)
    group = place.record.group if host and _has_group() else None
    if group:
        _say("remove", f"the group {group}", dry_run)
    if dry_run:
        return
    place.take_away(purge=purge)
    if group:
        _run("groupdel", group)
    if host:
        _reload_systemd()


def _is_host(root: str) -> bool:
    return os.path.realpath(root) == "/"


def _files(prefix: str, program: str) -> Iterator[Placed]:
    for name in (_UNIT, _AGENT):
        unit = _shared(name).replace(b"ExecStart=/usr/bin/startgate ", f"ExecStart={program} ".encode())
        yield Placed(f"{prefix}/lib/systemd/system/{name}", unit)
    yield Placed(f"{prefix}/lib/sysusers.d/startgate.conf", _shared("startgate.sysusers"))
    rules = files("startgate.policy").joinpath("rules.toml").read_bytes()
    yield Placed("/etc/startgate/config.toml", _shared("config.toml"), 0o600, 0o700)
    yield Placed("/etc/startgate/rules.toml", rules, 0o600, 0o700)
    share = f"{prefix}/share"
    yield Placed(f"{share}/bash-completion/completions/startgate", _completion(BashComplete))
    yield Placed(f"{share}/zsh/site-functions/_startgate", _completion(ZshComplete))
    yield Placed(f"{share}/fish/vendor_completions.d/startgate.fish", _completion(FishComplete))
    yield Placed(f"{share}/man/man1/startgate.1", _page())
    if program != f"{prefix}/bin/startgate":
        yield Placed(f"{prefix}/bin/startgate", os.fsencode(program), link=True)


def _shared(name: str) -> bytes:
    return files("startgate").joinpath("share", name).read_bytes()


def _completion(shell: type[ShellComplete]) -> bytes:
    from startgate.cli import app  # noqa: PLC0415  (it has these commands)

    complete = shell(app, {}, "startgate", "_STARTGATE_COMPLETE")
    # Not source(): bash's runs a bash, to see how old it is.
    return (complete.source_template % complete.source_vars()).encode()


def _page() -> bytes:
    from startgate.cli import app  # noqa: PLC0415
    from startgate.cli.manpage import page  # noqa: PLC0415

    return page(app, startgate.__version__).encode()


def _this_program() -> str:
    """Return the command of this interpreter's environment. Raises StartgateError where it has none."""
    program = Path(sysconfig.get_path("scripts"), "startgate")
    if not os.access(program, os.X_OK):
        raise StartgateError(f"{program} is not there: --command says which startgate the unit is to run")
    return str(program)


def _has_group() -> bool:
    try:
        grp.getgrnam(_GROUP)
    except KeyError:
        return False
    return True


def _tell(steps: Iterable[Step], dry_run: bool) -> None:
    for step in steps:
        _say(step.action, step.path + (f" ({step.why})" if step.why else ""), dry_run)


def _say(action: str, what: str, dry_run: bool) -> None:
    would = "would " if dry_run and action in ("write", "link", "remove", "make", "keep") else ""
    sys.stdout.write(one_line(f"{would}{action} {what}") + "\n")


def _refuse_while_used() -> None:
    """Raises StartgateError while systemd runs the unit, or would at boot."""
    if not _systemd():
        return
    for asked in ("is-active", "is-enabled"):
        if (
            subprocess.run(
                ["systemctl", "--quiet", asked, _UNIT], check=False, capture_output=True
            ).returncode
            == 0
        ):
            state = asked.removeprefix("is-")
            raise StartgateError(f"{_UNIT} is {state}; first: systemctl disable --now {_UNIT}")


def _reload_systemd() -> None:
    if _systemd():
        _run("systemctl", "daemon-reload")


def _systemd() -> bool:
    return os.path.isdir("/run/systemd/system") and shutil.which("systemctl") is not None


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise StartgateError(f"{command[0]} is not installed: {' '.join(command)} was not done") from error
    except subprocess.CalledProcessError as error:
        raise StartgateError(f"{' '.join(command)} failed: {error.stderr.strip()}") from error
