"""Bytes as an attacker would send them: messages that are nearly right, and headers that nearly fit."""

import json
from typing import Final

from hypothesis import strategies as st

from proxy.protocol.revisions import REGISTER

VERSIONS: Final = [*(revision.name for revision in REGISTER), "2099-01-01", "", "2026-07-28 ", " 2025-03-26"]
METHODS: Final = [
    *("tools/call", "tools/list", "prompts/get", "resources/read", "initialize", "server/discover", "ping"),
    *("notifications/cancelled", "Tools/Call", "", "tools/call\0"),
]
KEYS: Final = [
    *("jsonrpc", "id", "method", "params", "result", "error", "name", "uri", "arguments", "_meta", "cursor"),
    *(
        "io.modelcontextprotocol/protocolVersion",
        "io.modelcontextprotocol/clientCapabilities",
        "protocolVersion",
    ),
    *(
        "Method",
        "ID",
        "param\u017f",
        "method\0",
        " name",
        "na\u200bme",
        "\u212aey",
        "",
        "__proto__",
        "taskId",
    ),
]
TEXTS: Final = ["2.0", "echo", "other", *VERSIONS, *METHODS, '"', "\\", ",", "[", "\u2028", "\U0001f600"]
CODED: Final = b"=?base64?ZWNobw==?="
"""`echo`, wrapped."""
NUMBERS: Final = [
    "0",
    "-0",
    "1",
    "1.0",
    "1e2",
    "1e400",
    "-1e999",
    "9" * 30,
    "9" * 4_400,
    "NaN",
    "Infinity",
    "01",
]

texts = (st.sampled_from(TEXTS) | st.text(max_size=6)).map(json.dumps)
keys = (st.sampled_from(KEYS) | st.text(max_size=4)).map(json.dumps)
scalars = texts | st.sampled_from([*NUMBERS, "null", "true", '"\\ud800"', '"\\u006dethod"'])


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """JSON objects as text, so that a key may come twice."""
    members = st.tuples(keys, values).map(": ".join)
    return st.lists(members, max_size=5).map(lambda each: "{" + ",".join(each) + "}")


values = st.recursive(
    scalars,
    lambda inner: objects(inner) | st.lists(inner, max_size=4).map(lambda each: "[" + ", ".join(each) + "]"),
    max_leaves=10,
)


@st.composite
def messages(draw: st.DrawFn) -> str:
    """A message that is nearly right: well-formed members, some missing, some twice, some strange."""
    params = draw(
        st.sampled_from(
            [
                '{"name":"echo","arguments":{"a":1}}',
                '{"name":"echo","name":"other"}',
                '{"uri":"file:///a","_meta":{"progressToken":0}}',
                '{"protocolVersion":"2025-06-18"}',
                "{}",
                '{"name":"echo","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
                '"io.modelcontextprotocol/clientCapabilities":{}}}',
            ]
        )
        | values
    )
    members = [
        '"jsonrpc":"2.0"',
        '"id":'
        + draw(st.sampled_from(["1", "0", "2", '"a"', '""', '"1"'] * 3 + ["null", "1.5", "true"]) | scalars),
        '"method":' + json.dumps(draw(st.sampled_from(METHODS))),
        f'"params":{params}',
        f"{draw(keys)}:{draw(values)}",
        '"result":{}',
    ]
    kept = members[: draw(st.sampled_from([4, 4, 4, 4, 5, 6]))]
    if draw(st.integers(0, 9)) == 0:
        kept = draw(st.permutations([*kept, draw(st.sampled_from(members))]))
    if draw(st.integers(0, 3)) == 0:
        del kept[draw(st.integers(0, len(kept) - 1))]
    return "{" + ",".join(kept) + "}"


MODERN_META: Final = (
    '"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    '"io.modelcontextprotocol/clientCapabilities":{}}'
)
sound = st.builds(
    '{{"jsonrpc":"2.0",{}{},"x-more":{}}}'.format,
    st.sampled_from(['"id":1,', '"id":0,', '"id":"1",', '"id":"",', ""]),
    st.sampled_from(
        [
            '"method":"tools/call","params":{"name":"echo","arguments":{"name":"other","METHOD":[1.0]}}',
            '"params":{"arguments":null,"name":"echo",' + MODERN_META + '},"method":"tools/call"',
            '"method":"resources/read","params":{"uri":"file:///a"}',
            '"method":"initialize","params":{"protocolVersion":"2025-06-18"}',
            '"method":"notifications/progress"',
        ]
    ),
    scalars.filter(lambda text: text not in ('"\\ud800"', *NUMBERS)),
)
"""Messages that are right; whatever stands beside them must not matter."""


@st.composite
def damaged(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with a piece cut out, put in or turned round."""
    body = draw(source)
    at = draw(st.integers(0, len(body)))
    to = draw(st.integers(at, min(len(body), at + 8)))
    return (
        body[:at]
        + draw(st.binary(max_size=4) | st.sampled_from([b"\xef\xbb\xbf", b"\0", b"[[", b"}"]))
        + body[to:]
    )


batches = st.lists(sound | messages(), max_size=4).map(lambda each: "[" + " , ".join(each) + "]")
well_formed = (sound | sound | messages() | batches | values).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
bodies = well_formed | well_formed | damaged(well_formed) | st.binary(max_size=80)

header_names = st.sampled_from(
    [
        *(
            b"MCP-Protocol-Version",
            b"Mcp-Method",
            b"mcp-name",
            b"Mcp-Session-Id",
            b"Last-Event-ID",
            b"Accept",
        ),
        *(b"Mcp-Param-A", b"mcp-param-a", b"Content-Type", b"Connection", b"X-A", b"Authorization"),
    ]
)
header_values = st.sampled_from(
    [
        *(version.encode() for version in VERSIONS),
        *(method.encode() for method in METHODS),
        *(
            b"echo",
            b" echo\t",
            b"=?base64?ZWNobw==?=",
            b"=?base64?!?=",
            b"\xff",
            b"caf\xc3\xa9",
            b"close, x-a",
        ),
    ]
) | st.binary(max_size=8)
strange = st.lists(
    st.tuples(header_names, header_values), max_size=4, unique_by=lambda pair: pair[0]
) | st.lists(st.tuples(header_names, header_values), max_size=4)
fitting = st.sampled_from(
    [
        [],
        [(b"MCP-Protocol-Version", b"2025-03-26")],
        [(b"MCP-Protocol-Version", b" 2025-11-25"), (b"Mcp-Session-Id", b"s")],
        [(b"mcp-protocol-version", b"2026-07-28"), (b"Mcp-Method", b"tools/call"), (b"Mcp-Name", b"echo")],
        [
            (b"mcp-protocol-version", b"2026-07-28"),
            (b"Mcp-Method", b"tools/call"),
            (b"mcp-name", b"=?base64?ZWNobw==?="),
        ],
    ]
)
fields = fitting | strange | st.tuples(fitting, strange).map(lambda both: [*both[0], *both[1]])
