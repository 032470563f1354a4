"""What is asked again and again, and what the server behind says to it. Pure."""

from __future__ import annotations

import json
from typing import Final

from msgspec import Struct

LEGACY, MODERN = "2025-11-25", "2026-07-28"
TOOL: Final = "search_documents"
FORBIDDEN: Final = "delete_everything"
"""A tool that every peer with a policy must refuse."""
ANSWERED: Final = '"isError":false'
"""In every answer that counts, and in no refusal."""
ONES: Final = "1" * 9
"""In the place of the number that makes a call unique."""
_OF_MODERN: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Asked(Struct, frozen=True, kw_only=True):
    """One kind of call."""

    revision: str = LEGACY
    size: int = 1_024
    """Of the body, in bytes."""
    unique: bool = True
    """Each call has arguments of its own."""
    token: str = ""
    tool: str = TOOL

    @property
    def fields(self) -> dict[str, str]:
        """The header, but for what every client adds by itself."""
        fields = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": self.revision,
            "User-Agent": "bench/1",
        }
        if self.token:
            fields["Authorization"] = f"Bearer {self.token}"
        if self.revision == MODERN:
            fields |= {"Mcp-Method": "tools/call", "Mcp-Name": self.tool}
        return fields

    @property
    def body(self) -> tuple[str, str]:
        """What stands before and behind the nine digits that make a call unique."""
        begin = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
        begin += f'{{"name":"{self.tool}","arguments":{{"query":"'
        meta = f',"_meta":{_compact(_OF_MODERN)}' if self.revision == MODERN else ""
        end = f'","limit":10,"tags":["one","two"],"deep":{{"a":[1,2.5,null,true]}}}}{meta}}}}}'
        return begin + "x" * max(0, self.size - len(begin) - len(end) - len(ONES)), end

    @property
    def one(self) -> str:
        """The body of the call that is repeated where calls are not unique."""
        begin, end = self.body
        return begin + ONES + end

    def request(self, port: int) -> bytes:
        """Head and body of that one call."""
        fields = {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(self.one)), **self.fields}
        head = [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join(["POST /mcp HTTP/1.1", *head, "", self.one]).encode()


def body_of(size: int) -> str:
    """The static answer to a call with the id 1, of so many bytes."""
    begin = '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"'
    end = f'"}}],{ANSWERED}}}}}'
    return begin + "x" * (size - len(begin) - len(end)) + end


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
