"""The first revision: two endpoints, answers on the GET stream (HTTP+SSE)."""

from ...model import Era, Revision

R2024_11_05 = Revision(
    name="2024-11-05",
    era=Era.LEGACY,
    # The stream itself is the session; its id rides in the message endpoint.
    has_sessions=False,
    has_get_stream=True,
    allows_batch=False,
    mirrors_headers=False,
    is_resumable=False,
    # POST is only acknowledged (basic/transports, HTTP with SSE).
    answers_elsewhere=True,
    disconnect_cancels=False,
    has_result_type=False,
    link="https://modelcontextprotocol.io/specification/2024-11-05/basic/transports",
)
