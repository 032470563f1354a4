"""Settings → who signs checkpoints. Apart, because cryptography takes 20 ms to be imported."""

from __future__ import annotations

from ..configuration.mistakes import Position, Report, SettingsError, Unfit
from .audit_scribe import Sign
from .audit_settings import AuditSettings


def signer_of(settings: AuditSettings) -> Sign | None:
    """The key that the settings name. Raises SettingsError. IO: reads its file."""
    path = settings.signing_key_file
    if path is None:
        return None
    from .audit_signing import read_signer

    try:
        return read_signer(path)
    except Unfit as unfit:
        report = Report()
        report.add_unfit(Position(path), "telemetry.audit.signing_key_file", unfit)
        raise SettingsError(report.mistakes) from None
