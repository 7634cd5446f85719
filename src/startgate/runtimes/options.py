"""The options of the runtimes' commands, as they are written. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Takes(Enum):
    """What may follow an option."""

    NOTHING = ""
    VALUE = "="
    MAYBE = "?"
    """A value in the same word only: --tty=no, -tno."""


@dataclass(frozen=True)
class Option:
    """An option. Two names may mean one: --bundle and -b."""

    name: str
    """The long name, with its dashes."""
    takes: Takes


Level = Mapping[str, Option]
"""The options of one level of a command line, by all names."""


def _level(*texts: str) -> Level:
    """``bundle/b= detach/d tty/t?``: long names, letters, what they take."""
    found: dict[str, Option] = {}
    for word in " ".join(texts).split():
        names = word.rstrip("=?")
        long, *letters = names.split("/")
        option = Option(f"--{long}", Takes(word[len(names) :]))
        found |= {f"-{letter}": option for letter in letters} | {option.name: option}
    return MappingProxyType(found)


@dataclass(frozen=True)
class Runtime:
    """The options before the command, and those of the commands."""

    general: Level
    none: Level
    """Of a command that has no options of its own."""
    commands: Mapping[str, Level]

    def of(self, command: str) -> Level:
        """Return the options of a command."""
        return self.commands.get(command, self.none)


def _runtime(*, always: str, general: str, start: str, executing: str, kill: str, delete: str) -> Runtime:
    starting = _level(start, always)
    return Runtime(
        general=_level(general, always),
        none=_level(always),
        commands=MappingProxyType(
            dict.fromkeys(("create", "run", "restore"), starting)
            | {
                "exec": _level(executing, always),
                "kill": _level(kill, always),
                "delete": _level(delete, always),
            }
        ),
    )


RUNC = _runtime(
    always="help/h",
    general="debug log= log-format= root= criu= systemd-cgroup rootless= version/v",
    start="bundle/b= console-socket= pidfd-socket= pid-file= no-pivot no-new-keyring preserve-fds= detach/d "
    "keep no-subreaper no-mount-fallback image-path= work-path= tcp-established tcp-skip-in-flight "
    "link-remap ext-unix-sk shell-job lazy-pages file-locks manage-cgroups-mode= empty-ns= auto-dedup "
    "lsm-profile= lsm-mount-context=",
    executing="console-socket= pidfd-socket= cwd= env/e= tty/t user/u= additional-gids/g= process/p= "
    "detach/d pid-file= process-label= apparmor= no-new-privs cap/c= preserve-fds= cgroup= ignore-paused "
    "no-subreaper",
    kill="all/a",
    delete="force/f",
)
"""runc 1.0 to 1.5."""

# argp(3) adds --program-name and --HANG, which no help tells of.
CRUN = _runtime(
    always="help/? usage program-name= HANG?",
    general="cgroup-manager= debug log= log-format= log-level= root= rootless= systemd-cgroup version/v/V",
    start="bundle/b= config/f= console-socket= detach/d keep no-new-keyring no-pivot no-subreaper pid-file= "
    "preserve-fds= image-path= work-path= tcp-established tcp-close ext-unix-sk shell-job file-locks "
    "manage-cgroups-mode= network-lock lsm-profile= lsm-mount-context=",
    executing="apparmor= cap/c= cgroup= console-socket= cwd= detach/d env/e= no-new-privs pid-file= "
    "preserve-fds= process/p= process-label= tty/t? user/u=",
    kill="all/a regex/r",
    delete="force/f regex/r",
)
"""crun 1.0 to 1.28."""

ANY = _runtime(
    always="help/h/? usage version/v/V",
    general="root/r= log/l= log-format= criu= rootless= cgroup-manager= log-level= debug-log= "
    "debug-log-format= platform= network= overlay2= file-access= panic-log= debug-command= "
    "strace-syscalls= strace-log-size= user-log= host-uds= num-network-channels= watchdog-action= "
    "debug systemd-cgroup overlay strace alsologtostderr allow-packet-socket-write",
    start="bundle/b= pid-file/p= console-socket= console= pidfd-socket= preserve-fds= user-log= config/f= "
    "image-path= work-path= parent-path= manage-cgroups-mode= empty-ns= page-server= status-fd= "
    "lsm-profile= lsm-mount-context= keep-fd= log-fd= criu= pass-fd= exec-fd= detach/d keep no-pivot "
    "no-new-keyring no-subreaper no-mount-fallback tcp-established tcp-skip-in-flight link-remap "
    "ext-unix-sk shell-job file-locks auto-dedup lazy-pages tcp-close",
    executing="console-socket= console= pidfd-socket= cwd= env/e= user/u= additional-gids/g= process/p= "
    "pid-file= process-label= apparmor= cap/c= preserve-fds= cgroup= internal-pid-file= pass-fd= "
    "exec-fd= tty/t detach/d no-new-privs ignore-paused no-subreaper clear-groups",
    kill="signal/s= all/a regex/r",
    delete="force/f regex/r",
)
"""All of them together, youki's and runsc's too: for a runtime that nobody knows, or a newer one."""
