from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from startgate.cli import app
from startgate.errors import StartgateError, UsageError
from startgate.testing import make_bundle

RULES = """
[[rule]]
name = "no-shell"
match = 'container.args.exists(a, a == "/bin/sh")'
action = "deny"
message = "no shells"

[[rule]]
name = "harden"
match = "true"
action = "patch"
[rule.patch]
drop_capabilities = ["ALL"]

[[rule]]
name = "no-exec"
match = 'process.argv[0] == "cat"'
action = "deny"

[[rule]]
name = "by-label"
match = '"team" in container.annotations && container.annotations.team == "a" && container.image == "img"'
action = "warn"

[[rule]]
name = "late"
match = "container.pid > 1"
action = "audit"
"""


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def rules(tmp_path: Path) -> str:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return str(path)


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    return str(make_bundle(tmp_path / "bundle", ["/bin/true"]))


def test_check(rules: str) -> None:
    result = run("policy", "check", rules)
    assert result.exit_code == 0
    assert result.output.splitlines()[0] == "no-shell: deny at creating"
    assert result.output.splitlines()[-1] == f"{rules}: 5 rules"


def test_check_warns_of_what_never_matches(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        "[[rule]]\nname = 'r'\nmatch = '\"SYS_ADMIN\" in container.capabilities'\naction = 'deny'\n"
    )
    result = run("policy", "check", str(path))
    assert result.exit_code == 0
    assert (
        f"warning: {path}:3:9: rule r: it can never match: container.capabilities is never" in result.stderr
    )


def test_check_tells_where_it_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(RULES.replace("container.pid", "container.pdi"))
    result = run("policy", "check", str(tmp_path / "bad.toml"))
    assert str(result.exception).endswith(
        "bad.toml:27:20: match: unknown field of container pdi: did you mean pid?"
    )


def test_what_would_be_changed(rules: str, bundle: str) -> None:
    result = run("policy", "test", rules, "--bundle", bundle)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].split() == ["RULE", "EVENT", "RESULT", "MESSAGE"]
    assert [line.split()[:3] for line in lines[1:6]] == [
        ["no-shell", "creating", "no"],
        ["harden", "creating", "patch"],
        ["by-label", "creating", "no"],
        ["no-exec", "exec", "not"],
        ["late", "created", "not"],
    ]
    assert "  harden: replace /process/capabilities/bounding []" in lines
    assert lines[-1] == "verdict: allow"
    assert json.loads(Path(bundle, "config.json").read_text())["process"]["capabilities"]["bounding"]


def test_what_would_be_refused(rules: str, tmp_path: Path) -> None:
    bundle = str(make_bundle(tmp_path / "shell", ["/bin/sh"]))
    result = run("policy", "test", rules, "--bundle", bundle, "-o", "json")
    assert result.exit_code == 1
    told = json.loads(result.output)
    assert told["verdict"] == "deny"
    assert told["reason"] == {"message": "no shells", "rule": "no-shell"}
    assert told["patch"] == []


def test_the_diff_as_json(rules: str, bundle: str) -> None:
    told = json.loads(run("policy", "test", rules, "--bundle", bundle, "-o", "json").output)
    assert {operation["op"] for operation in told["patch"]} == {"replace"}
    assert len(told["patch"]) == 3


def test_annotations_and_an_image_may_be_given(rules: str, bundle: str) -> None:
    words = [
        "policy",
        "test",
        rules,
        "--bundle",
        bundle,
        "-o",
        "json",
        "--annotation",
        "team=a",
        "--image",
        "img",
    ]
    told = json.loads(run(*words).output)
    assert [each["result"] for each in told["rules"] if each["rule"] == "by-label"] == ["warn"]


@pytest.mark.parametrize("text", ["", "x", "=x"])
def test_an_annotation_that_is_none(rules: str, bundle: str, text: str) -> None:
    result = run("policy", "test", rules, "--bundle", bundle, "--annotation", text)
    assert isinstance(result.exception, UsageError)
    assert "it is written KEY=VALUE" in str(result.exception)


def test_an_exec(rules: str, bundle: str) -> None:
    assert run("policy", "test", rules, "--bundle", bundle, "--exec", "ls -l").exit_code == 0
    result = run("policy", "test", rules, "--bundle", bundle, "--exec", "cat /etc/shadow")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == "verdict: deny by no-exec: no-exec"


def test_a_bundle_that_is_none(rules: str, tmp_path: Path) -> None:
    result = run("policy", "test", rules, "--bundle", str(tmp_path))
    assert f"{tmp_path}/config.json: No such file" in str(result.exception)


@pytest.mark.parametrize(
    ("content", "said"), [("{", "Input data was truncated"), ("[]", "Expected `object`, got `array`")]
)
def test_a_config_that_is_none(rules: str, tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    result = run("policy", "test", rules, "--bundle", str(tmp_path))
    assert isinstance(result.exception, StartgateError)
    assert str(result.exception).startswith(f"{path}: ") and said in str(result.exception)


def test_a_config_that_is_a_fifo(rules: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    result = run("policy", "test", rules, "--bundle", str(tmp_path))
    assert "config.json: not a regular file" in str(result.exception)


@pytest.mark.parametrize("words", [[], ["--bundle", "/", "--container", "x"]])
def test_a_bundle_or_a_container(rules: str, words: list[str]) -> None:
    result = run("policy", "test", rules, *words)
    assert isinstance(result.exception, UsageError)
    assert "either --bundle DIR or --container ID" in str(result.exception)


def test_a_bundle_that_is_no_utf8(rules: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'{"ociVersion": "\xff"}')
    result = run("policy", "test", rules, "--bundle", str(tmp_path))
    assert isinstance(result.exception, StartgateError)


def test_an_exec_with_an_open_quotation(rules: str, bundle: str) -> None:
    result = run("policy", "test", rules, "--bundle", bundle, "--exec", "sh -c '")
    assert isinstance(result.exception, UsageError)
    assert "No closing quotation" in str(result.exception)


def test_the_example_is_good(tmp_path: Path) -> None:
    example = run("policy", "example")
    (tmp_path / "rules.toml").write_text(example.output)
    assert run("policy", "check", str(tmp_path / "rules.toml")).exit_code == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root has files that are root's")
def test_a_configuration(tmp_path: Path, rules: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text("policy = ['rules.toml']\n[[hook]]\non = ['created']\ncommand = 'true'\n")
    result = run("config", "check", str(path))
    assert result.output == f"{path}: 1 policy files, 1 hooks\n"
    path.write_text("policies = ['rules.toml']\n")
    assert "unknown key policies: did you mean policy?" in str(run("config", "check", str(path)).exception)


def test_no_configuration_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That is no mistake; one that was named, and a link that leads nowhere, are."""
    monkeypatch.setattr("startgate.cli.policy.CONFIG", str(tmp_path / "config.toml"))
    result = run("config", "check")
    assert (result.exit_code, result.output) == (
        0,
        f"{tmp_path}/config.toml: there is none, so the defaults hold\n",
    )
    (tmp_path / "config.toml").symlink_to("nowhere")
    assert run("config", "check").exit_code != 0
    assert run("config", "check", str(tmp_path / "other.toml")).exit_code == 2
