"""Differs from 2025-11-25: no handshake, sessions, GET or DELETE; version and capabilities ride in every request."""

from ...model import Era, Revision

R2026_07_28 = Revision(
    name="2026-07-28",
    era=Era.MODERN,
    has_sessions=False,
    has_get_stream=False,
    allows_batch=False,
    # `Mcp-Method`, `Mcp-Name`, `Mcp-Param-*`: whoever reads the body MUST validate them.
    mirrors_headers=True,
    is_resumable=False,
    answers_elsewhere=False,
    # Closing the response stream is the cancellation (basic/patterns/cancellation).
    disconnect_cancels=True,
    # `resultType` is required on every result (basic/index).
    has_result_type=True,
    link="https://modelcontextprotocol.io/specification/2026-07-28/basic/transports/streamable-http",
)
