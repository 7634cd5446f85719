from __future__ import annotations

import os
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.runtimes.commandline import OTHER, Command, Invocation, parse


def call(line: str) -> Invocation:
    return parse([os.fsencode(word) for word in shlex.split(line)])


BUNDLE_SPELLINGS = [
    "--bundle /b",
    "--bundle=/b",
    "-b /b",
    "-d -b /b",
    "--detach --bundle=/b",
    "--bundle /a --bundle /b",
    "--pid-file /p --bundle /b --console-socket /c",
]
GO_SPELLINGS = ["-bundle /b", "-bundle=/b", "-b=/b", "-b /a --no-pivot -b=/b", "-d=true -b /b"]
GNU_SPELLINGS = ["-b/b", "--bund /b", "--bundl=/b", "--b /b", "-db /b", "-db/b", "--bundle /a -b /b"]


@pytest.mark.parametrize("spelling", BUNDLE_SPELLINGS + GO_SPELLINGS)
@pytest.mark.parametrize("runtime", ["runc", "youki"])
def test_every_spelling_of_the_bundle(runtime: str, spelling: str) -> None:
    for line in (f"{runtime} run {spelling} ID", f"{runtime} run ID {spelling}"):
        called = call(line)
        assert (called.command, called.id, called.bundle) == (Command.RUN, "ID", "/b")


@pytest.mark.parametrize("spelling", BUNDLE_SPELLINGS + GNU_SPELLINGS)
def test_every_spelling_of_cruns_bundle(spelling: str) -> None:
    called = call(f"crun run {spelling} ID")
    assert (called.command, called.id, called.bundle) == (Command.RUN, "ID", "/b")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # Go's flag package takes =, getopt(3) a value as it is.
        ("runc run -b=/b ID", Invocation(Command.RUN, "ID", bundle="/b")),
        ("crun run -b=/b ID", Invocation(Command.RUN, "ID", bundle="=/b")),
        # Letters in one word are getopt's.
        ("crun exec -td ID sh", Invocation(Command.EXEC, "ID", arguments=("sh",), options=(("--tty", "d"),))),
        (
            "crun exec -dt ID sh",
            Invocation(
                Command.EXEC, "ID", detach=True, arguments=("sh",), options=(("--detach", ""), ("--tty", ""))
            ),
        ),
        # urfave/cli moves what follows an option, too.
        ("runc kill ID --all KILL", Invocation(Command.KILL, "KILL", signal="ID")),
        ("runc kill ID -a -- KILL", Invocation(Command.KILL, "ID", signal="KILL")),
        ("runc kill ID --all=true KILL", Invocation(Command.KILL, "ID", signal="KILL")),
        ("crun kill -a ID KILL", Invocation(Command.KILL, "ID", signal="KILL")),
        # Flags have values.
        ("runc run --detach=false ID", Invocation(Command.RUN, "ID")),
        ("runc run --help=false ID", Invocation(Command.RUN, "ID")),
        ("runc run -h=0 ID", Invocation(Command.RUN, "ID")),
        ("runc --systemd-cgroup=false run ID", Invocation(Command.RUN, "ID")),
        # The first -- ends the options; a second one is the container's.
        ("runc exec ID -- ls", Invocation(Command.EXEC, "ID", arguments=("--", "ls"))),
        ("crun exec ID -- ls", Invocation(Command.EXEC, "ID", arguments=("--", "ls"))),
        ("youki exec ID -- ls", Invocation(Command.EXEC, "ID", arguments=("ls",))),
        ("runc run -- -d", Invocation(Command.RUN, "-d")),
        ("crun run -- -d", Invocation(Command.RUN, "-d")),
        ("runc run -d -- ID", Invocation(Command.RUN, "ID", detach=True)),
        # argp(3) adds options that no help tells of; crun takes what is cut short where one thing is meant.
        ("crun start --program-name x ID", Invocation(Command.START, "ID")),
        ("crun --ro /r --roo /s start ID", Invocation(Command.START, "ID", root="/s")),
        ("crun delete --regex .", OTHER),
        ("crun resume ID --help", Invocation(Command.RESUME, "ID")),
        ("crun run --us ID", OTHER),
        # A word behind a flag is no value of it.
        ("runc --debug unknown run ID", OTHER),
    ],
)
def test_each_runtime_reads_in_its_own_way(line: str, expected: Invocation) -> None:
    """As they do it: tests/kernel/commandlines compares with them."""
    assert call(line) == expected


def test_the_binarys_name_counts() -> None:
    """argv[0] may be a link's."""
    words = [b"runc", b"run", b"-b=/b", b"ID"]
    assert parse(words).bundle == "/b"
    assert parse(words, "/usr/bin/crun").bundle == "=/b"
    assert parse(words, "/").bundle == "/b"


@pytest.mark.parametrize(
    ("runtime", "spelling"),
    [
        ("runc", "--pid-file /p"),
        ("crun", "--pid-file=/p"),
        ("runc", "-pid-file /p"),
        ("runc", "-pid-file=/p"),
        ("crun", "--pid-f /p"),
        ("crun", "--pid=/p"),
    ],
)
@pytest.mark.parametrize("command", [Command.CREATE, Command.RUN, Command.RESTORE])
def test_every_spelling_of_the_pid_file(command: Command, runtime: str, spelling: str) -> None:
    called = call(f"{runtime} {command.value} {spelling} -b /b ID")
    assert called == Invocation(command, "ID", bundle="/b", pid_file="/p")


@pytest.mark.parametrize(
    "spelling",
    [
        "--root /r",
        "--root=/r",
        "-root /r",
        "-root=/r",
        "--debug --root /r",
        "--root /r --debug",
        "--log-format json --root /r",
        "--root /r --log-format=json",
        "--criu /usr/sbin/criu --root=/r --rootless auto",
        "--future /x --root /r",
        "--root /r --future /x",
        "--root /r --future=/x",
        "--future /x --other /y --root /r",
    ],
)
@pytest.mark.parametrize("command", ["create", "run", "restore", "start", "kill", "pause", "resume"])
def test_options_before_the_command(command: str, spelling: str) -> None:
    called = call(f"runc {spelling} {command} ID")
    assert (called.command.value, called.id, called.root) == (command, "ID", "/r")


@pytest.mark.parametrize("line", ["runc --root /r --systemd-cgroup {}", "runc --systemd-cgroup --root /r {}"])
@pytest.mark.parametrize("command", ["create --bundle /b ID", "start ID", "exec ID true", "kill ID 9"])
def test_the_systemd_cgroup_flag_takes_no_value(line: str, command: str) -> None:
    called = call(line.format(command))
    assert (called.command.value, called.root, called.id) == (command.split(maxsplit=1)[0], "/r", "ID")


def test_the_keep_flag_takes_no_value() -> None:
    assert call("runc run --keep ID") == Invocation(Command.RUN, "ID")


def test_the_overlay_flag_takes_no_value() -> None:
    assert call("runsc --overlay run ID") == Invocation(Command.RUN, "ID")


@pytest.mark.parametrize("flag", ["-detach", "-shell-job"])
def test_long_flags_with_one_dash(flag: str) -> None:
    called = call(f"runc restore {flag} -b /b ID")
    assert (called.command, called.id, called.bundle) == (Command.RESTORE, "ID", "/b")


@pytest.mark.parametrize("flag", ["-no-mount-fallback", "-a-future-hyphenated-flag"])
def test_long_flags_that_are_in_no_list_with_one_dash(flag: str) -> None:
    """A cluster of short options holds no dash. runc 1.2 has --no-mount-fallback."""
    assert call(f"runc run {flag} -b /b ID") == Invocation(Command.RUN, "ID", bundle="/b")


def test_long_flags_of_exec_with_one_dash() -> None:
    assert call("runc exec -detach ID true").options == (("--detach", ""),)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("runc create ID", Invocation(Command.CREATE, "ID")),
        ("/usr/sbin/runc run ID", Invocation(Command.RUN, "ID")),
        ("anything run ID", Invocation(Command.RUN, "ID")),
        ("runc run -d ID", Invocation(Command.RUN, "ID", detach=True)),
        ("runc run --detach ID", Invocation(Command.RUN, "ID", detach=True)),
        ("runc run -- ID", Invocation(Command.RUN, "ID")),
        ("runc run --bundle /b -- ID", Invocation(Command.RUN, "ID", bundle="/b")),
        ("runc run --bundle -- ID", Invocation(Command.RUN, "ID", bundle="--")),
        ("runc run --bundle --pid-file ID", Invocation(Command.RUN, "ID", bundle="--pid-file")),
        ("runc run --bundle= ID", Invocation(Command.RUN, "ID", bundle="")),
        ("runc run --bundle=/a=b ID", Invocation(Command.RUN, "ID", bundle="/a=b")),
        ("runc run -b/a=b ID", Invocation(Command.RUN, "ID", bundle="/a=b")),
        ("runc run --pid-file= ID", Invocation(Command.RUN, "ID")),
        ("runc run --preserve-fds 3 ID", Invocation(Command.RUN, "ID")),
        ("runc create --console-socket /s ID", Invocation(Command.CREATE, "ID")),
        ("crun run -f other.json ID", Invocation(Command.RUN, "ID", config="other.json")),
        ("crun run --config=other.json ID", Invocation(Command.RUN, "ID", config="other.json")),
        ("runc --log /l run ID", Invocation(Command.RUN, "ID", log="/l")),
        ("crun --log=file:/l run ID", Invocation(Command.RUN, "ID", log="file:/l")),
        ("runc run --future ID", Invocation(Command.RUN, "ID")),
        ("runc run --future value ID", Invocation(Command.RUN, "ID")),
        ("runc run --future value -b /b ID", Invocation(Command.RUN, "ID", bundle="/b")),
        ("runc run -x ID", Invocation(Command.RUN, "ID")),
        ("crun run ID --future value", Invocation(Command.RUN, "ID")),
        ("runc create --pidfd-socket /s ID", Invocation(Command.CREATE, "ID")),
        ("runc start ID", Invocation(Command.START, "ID")),
        ("runc restore --image-path /i -b /b ID", Invocation(Command.RESTORE, "ID", bundle="/b")),
        ("runc restore --work-path /w --lazy-pages ID", Invocation(Command.RESTORE, "ID")),
        # An id may be any word, a command's name too.
        ("runc run run", Invocation(Command.RUN, "run")),
        ("runc create create", Invocation(Command.CREATE, "create")),
        ("runc --root run create ID", Invocation(Command.CREATE, "ID", root="run")),
    ],
)
def test_starting_commands(line: str, expected: Invocation) -> None:
    assert call(line) == expected


@pytest.mark.parametrize(
    "flag",
    [
        "--no-pivot",
        "--no-new-keyring",
        "--no-subreaper",
        "--no-mount-fallback",
        "--tcp-established",
        "--ext-unix-sk",
        "--shell-job",
        "--file-locks",
        "--auto-dedup",
        "--lazy-pages",
        "--keep",
        "--detach",
        "-d",
    ],
)
def test_flags_of_runtimes_take_no_value(flag: str) -> None:
    for spelling in (flag, f"{flag}=true"):
        called = call(f"runc restore {spelling} ID")
        assert (called.command, called.id) == (Command.RESTORE, "ID")


@pytest.mark.parametrize(
    "flag", ["--debug", "--systemd-cgroup", "--overlay", "--strace", "--alsologtostderr"]
)
@pytest.mark.parametrize("dashes", ["-", "--"])
def test_global_flags_take_no_value(flag: str, dashes: str) -> None:
    called = call(f"runsc {dashes}{flag.lstrip('-')} --root /r create -b /b ID")
    assert called == Invocation(Command.CREATE, "ID", root="/r", bundle="/b")


@pytest.mark.parametrize(
    ("line", "signal"),
    [
        ("runc kill ID", None),
        ("runc kill ID 9", "9"),
        ("runc kill ID KILL", "KILL"),
        ("runc kill ID SIGTERM", "SIGTERM"),
        ("runc kill --all ID 9", "9"),
        ("runc kill -a ID KILL", "KILL"),
        ("runc kill ID KILL --all", "KILL"),
        ("youki kill ID --all KILL", "KILL"),
        ("runc kill -- ID KILL", "KILL"),
        ("youki kill -s KILL ID", "KILL"),
        ("youki kill --signal=9 ID", "9"),
        ("runc kill ID ''", ""),
    ],
)
def test_kill_names_its_signal(line: str, signal: str | None) -> None:
    assert call(line) == Invocation(Command.KILL, "ID", signal=signal)


@pytest.mark.parametrize(
    "line",
    [
        "runc delete ID",
        "runc delete --force ID",
        "runc delete ID -f",
        "crun delete -f ID",
        "youki delete --forc ID",
    ],
)
def test_delete(line: str) -> None:
    assert call(line) == Invocation(Command.DELETE, "ID")


@pytest.mark.parametrize(
    ("line", "arguments", "options"),
    [
        ("runc exec ID", (), ()),
        ("runc exec ID ls", ("ls",), ()),
        ("runc exec ID ls -l --bundle /x -h", ("ls", "-l", "--bundle", "/x", "-h"), ()),
        ("anything exec ID -- ls -l", ("ls", "-l"), ()),
        ("runc exec -- ID ls", ("ls",), ()),
        ("runc exec ID ls -- x", ("ls", "--", "x"), ()),
        ("runc exec -t ID sh", ("sh",), (("--tty", ""),)),
        ("runc exec -u 0:0 ID sh", ("sh",), (("--user", "0:0"),)),
        ("runc exec -u0 ID sh", ("sh",), (("--user", "0"),)),
        ("runc exec -tu 0 ID sh", ("sh",), (("--tty", ""), ("--user", "0"))),
        ("runc exec -e A=1 --env=B=2 ID env", ("env",), (("--env", "A=1"), ("--env", "B=2"))),
        ("runc exec --env A=--help ID env", ("env",), (("--env", "A=--help"),)),
        ("runc exec --cwd /tmp ID pwd", ("pwd",), (("--cwd", "/tmp"),)),
        (
            "runc exec --cap CAP_KILL -c CAP_CHOWN ID x",
            ("x",),
            (("--cap", "CAP_KILL"), ("--cap", "CAP_CHOWN")),
        ),
    ],
)
def test_exec_keeps_the_containers_words_apart(
    line: str, arguments: tuple[str, ...], options: tuple[tuple[str, str], ...]
) -> None:
    assert call(line) == Invocation(Command.EXEC, "ID", arguments=arguments, options=options)


@pytest.mark.parametrize("spelling", ["--process /p", "--process=/p", "-p /p", "-p/p"])
def test_exec_with_a_process_file(spelling: str) -> None:
    called = call(f"runc --root /r exec {spelling} --detach --pid-file /f ID")
    assert (called.command, called.id, called.process) == (Command.EXEC, "ID", "/p")
    assert (called.root, called.pid_file, called.detach) == ("/r", "/f", True)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "''",
        "runc",
        "runc ''",
        "runc init",
        "runc state ID",
        "runc ps ID",
        "runc list",
        "runc checkpoint ID",
        "runc --version",
        "runc -v",
        "runc --help",
        "runc -h",
        "runc --help run ID",
        "runc --root /r",
        "runc --root",
        "runc --",
        "runc -",
        "runc create",
        "runc create --help",
        "runc create -h",
        "runc run ID --help",
        "runc run -b /b",
        "runc run -b",
        "runc run ''",
        "runc run --",
        "runc exec --help",
        "runc start",
        "runc kill",
        "runc unknown run ID",
        "runc-create ID",
    ],
)
def test_what_names_no_container_is_other(line: str) -> None:
    assert call(line) == OTHER


def test_no_argument_at_all() -> None:
    assert parse([]) == OTHER


def test_bytes_that_are_no_utf8_survive() -> None:
    called = parse([b"runc", b"--root=/\xff", b"create", b"-b", b"/b\x80", b"\xfe"])
    assert called.root is not None
    assert called.bundle is not None
    assert [os.fsencode(text) for text in (called.root, called.bundle, called.id)] == [
        b"/\xff",
        b"/b\x80",
        b"\xfe",
    ]


def test_two_thousand_arguments() -> None:
    words = tuple(str(number) for number in range(2000))
    assert call("runc exec ID " + " ".join(words)).arguments == words
    environment = "".join(f" -e A{number}=1" for number in range(1000))
    assert len(call(f"runc exec{environment} ID true").options) == 1000
    assert call(f"runc run{' --future value' * 1000} ID") == Invocation(Command.RUN, "ID")


@pytest.mark.parametrize("command", list(Command))
def test_which_commands_start_a_container(command: Command) -> None:
    assert command.starts is (command.value in ("create", "run", "restore"))


# Properties

arguments = st.binary(max_size=12).map(lambda word: word.replace(b"\0", b""))
words = st.sampled_from(
    b"run create exec kill start state -- - -b --bundle --bundle= -d -h --root --pid-file= ID = -=".split()
)


@given(st.lists(st.one_of(words, arguments), max_size=12))
def test_parse_never_raises(argv: list[bytes]) -> None:
    called = parse(argv)
    assert (called.command is Command.OTHER) == (called.id == "" and called.doubt is None)
    assert called.command is not Command.OTHER or called == OTHER


ids = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,20}", fullmatch=True)
values = arguments.filter(bool).map(os.fsdecode)
paths = values.map(lambda value: "/" + value)
unknown_flags = st.sampled_from(
    ["--no-pivot", "--no-new-keyring", "--future", "--future=1", "--no-subreaper"]
)


@st.composite
def spelled(draw: st.DrawFn, long: str, value: str, short: str = "") -> list[str]:
    """Write an option in one of the ways that both families of runtimes take."""
    ways = [[long, value], [f"{long}={value}"]]
    if short:
        ways += [[short, value], [f"{short}={value}"], [f"{short}{value}"]]
    return draw(st.sampled_from(ways))


@st.composite
def invocations(draw: st.DrawFn) -> tuple[list[str], Invocation]:
    """Return a starting command line, and what it means."""
    command = draw(st.sampled_from([Command.CREATE, Command.RUN, Command.RESTORE]))
    root, log, bundle, pid_file = (draw(st.none() | paths) for _ in range(4))
    name, detach = draw(ids), draw(st.booleans())
    before = [draw(spelled("--root", root))] if root else []
    before += [draw(spelled("--log", log))] if log else []
    log_format = draw(st.sampled_from([None, "json", "text"]))
    before += [draw(spelled("--log-format", log_format))] if log_format else []
    before += draw(st.lists(st.sampled_from([["--debug"], ["--log-level", "info"], ["--rootless=auto"]])))
    after = [draw(spelled("--bundle", bundle, "-b"))] if bundle else []
    after += [draw(spelled("--pid-file", pid_file))] if pid_file else []
    after += [[draw(st.sampled_from(["-d", "--detach"]))]] if detach else []
    after += [[flag] for flag in draw(st.lists(unknown_flags, max_size=3))]
    after.append([name])
    line = [word for option in draw(st.permutations(before)) for word in option]
    line += [command.value, *(word for option in draw(st.permutations(after)) for word in option)]
    meant = Invocation(
        command,
        name,
        root=root,
        log=log,
        log_format=log_format,
        bundle=bundle,
        pid_file=pid_file,
        detach=detach,
    )
    return line, meant


@given(invocations())
def test_whatever_the_spelling_it_means_the_same(example: tuple[list[str], Invocation]) -> None:
    line, meant = example
    assert parse([b"runc", *(os.fsencode(word) for word in line)]) == meant


@given(ids, st.lists(values), st.none() | values, st.none() | paths)
def test_exec_gives_back_its_argv(name: str, argv: list[str], user: str | None, root: str | None) -> None:
    options = ["--user", user] if user else []
    line = [*(["--root", root] if root else []), "exec", *options, "--", name, *argv]
    called = parse([b"runc", *(os.fsencode(word) for word in line)])
    assert (called.command, called.id, called.root) == (Command.EXEC, name, root)
    assert called.arguments == tuple(argv)
    assert dict(called.options).get("--user") == user


@pytest.mark.parametrize(
    "option",
    [
        "--pidfd-socket /s",
        "-pidfd-socket /s",
        "--pidfd-socket=/s",
        "--console /dev/pts/1",
        "--process-label l --cgroup /c --preserve-fds 3 -g 5 --additional-gids 6",
        "--pass-fd 3:4 --exec-fd 5",
        "--no-subreaper --ignore-paused --clear-groups",
        "--future=1",
    ],
)
def test_options_of_exec(option: str) -> None:
    called = call(f"runc exec {option} ID sh -c true")
    assert (called.id, called.arguments, called.doubt) == ("ID", ("sh", "-c", "true"), None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("runc exec --future value ID sh", ("value", "ID", "sh")),
        ("runc exec --future ID sh", ("ID", "sh")),
        ("runc exec -t --future -d ID sh", ("ID", "sh")),
        ("runc exec -tx ID sh", ("ID", "sh")),
        ("runc run --future one --other two", ("one", "two")),
    ],
)
def test_an_option_that_nobody_knows_leaves_a_doubt(line: str, words: tuple[str, ...]) -> None:
    """Never a wrong id: any of the words may be it."""
    called = call(line)
    assert (called.id, called.arguments, bool(called.doubt)) == ("", words, True)
