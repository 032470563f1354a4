"""Differs from 2025-06-18: servers may close a stream after a priming event and be polled; Origin is 403."""

from ...model import Era, Revision

R2025_11_25 = Revision(
    name="2025-11-25",
    era=Era.LEGACY,
    has_sessions=True,
    has_get_stream=True,
    allows_batch=False,
    mirrors_headers=False,
    # Also streams born of a POST, always by GET with `Last-Event-ID`.
    is_resumable=True,
    answers_elsewhere=False,
    disconnect_cancels=False,
    has_result_type=False,
    link="https://modelcontextprotocol.io/specification/2025-11-25/basic/transports",
)
