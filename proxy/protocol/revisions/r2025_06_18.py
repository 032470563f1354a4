"""Differs from 2025-03-26: no batches; every request after `initialize` names its version in a header."""

from ...model import Era, Revision

R2025_06_18 = Revision(
    name="2025-06-18",
    era=Era.LEGACY,
    has_sessions=True,
    has_get_stream=True,
    # The body MUST be a single message.
    allows_batch=False,
    mirrors_headers=False,
    is_resumable=True,
    answers_elsewhere=False,
    disconnect_cancels=False,
    has_result_type=False,
    link="https://modelcontextprotocol.io/specification/2025-06-18/basic/transports",
)
