from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.errors import BundleError
from startgate.runtimes.oci import Config, decode_config, decode_process
from startgate.runtimes.plain import expect_plain


@pytest.mark.parametrize(
    "text",
    [
        '{"process": {"args": ["a"]}, "process": {"args": ["b"]}}',
        '{"process": {"args": ["a"], "args": ["b"]}}',
        '{"process" : {"args" : ["a"],\n"args"\t:["b"]}}',
        '{"process": {"args": ["\\u0022:"], "args": ["b"]}}',
        '{"process": {"args": ["\\"\\u003a"], "args": ["b"]}}',
        '{"mounts": [{"destination": "/a", "source": "/b", "source": "/c"}]}',
        '{"annotations": {"a": "1", "a": "2"}}',
        '{"linux": {"unknown": {"x": 1, "x": 2}}}',
    ],
)
def test_a_key_that_is_there_twice(text: str) -> None:
    with pytest.raises(BundleError, match="is there twice"):
        decode_config(text.encode())


@pytest.mark.parametrize(
    "document",
    [
        {"Process": {"args": ["a"]}},
        {"process": {"noNewPrivileges": True, "NoNewPrivileges": False}},
        {"mounts": [{"destination": "/a", "Source": "/b"}]},
        {"linux": {"name\u017fpaces": []}},
        {"linux": {"resources": {"DEVICES": []}}},
        {"Hoo\u212as": {}},
    ],
)
def test_a_key_in_another_case(document: object) -> None:
    with pytest.raises(BundleError, match="is in another case"):
        decode_config(json.dumps(document).encode())


def test_a_process_file() -> None:
    with pytest.raises(BundleError, match="is there twice"):
        decode_process(b'{"args": ["ls"], "args": ["sh"]}')
    with pytest.raises(BundleError, match="is in another case"):
        decode_process(b'{"args": ["ls"], "Args": ["sh"]}')


@pytest.mark.parametrize(
    "document",
    [
        {"annotations": {"Process": "x", "process": "y", "Mounts": ""}},
        {"linux": {"sysctl": {"Args": "1"}}},
        {"process": {"args": ['a":', '\\":', '"'], "env": ['X=":']}},
        {"Unknown": {"args": 1}},
        {},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_what_all_read_alike(document: object, indent: int | None) -> None:
    decode_config(json.dumps(document, indent=indent).encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
)


@given(st.dictionaries(st.text('a":\\ ', max_size=5), json_values, max_size=3), st.booleans())
def test_what_is_there_once_is_never_taken_for_twice(document: object, ascii_only: bool) -> None:
    expect_plain(json.dumps({"annotations": document}, ensure_ascii=ascii_only).encode(), Config)
