"""Differs from 2024-11-05: one endpoint, answers on the POST that asked, sessions, resumption, batches."""

from ...model import Era, Revision

R2025_03_26 = Revision(
    name="2025-03-26",
    era=Era.LEGACY,
    has_sessions=True,
    has_get_stream=True,
    # Receivers MUST accept batches (basic/index); `initialize` is never part of one.
    allows_batch=True,
    mirrors_headers=False,
    is_resumable=True,
    answers_elsewhere=False,
    # "Disconnection SHOULD NOT be interpreted as the client cancelling its request."
    disconnect_cancels=False,
    has_result_type=False,
    link="https://modelcontextprotocol.io/specification/2025-03-26/basic/transports",
)
