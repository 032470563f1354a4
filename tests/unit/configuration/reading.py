"""Reading settings in tests: bytes in a file of their own, the mistakes as lines without the file's name."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from proxy.settings import Settings, SettingsError, load


def written(folder: Path, content: str | bytes) -> Path:
    file = folder / "config.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def read(
    folder: Path,
    content: str | bytes,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Settings:
    return load(written(folder, content), overrides=overrides, environ=environ or {})


def mistakes(
    folder: Path,
    content: str | bytes,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> list[str]:
    """Every mistake on its line, with `F` for the file; empty where there is none."""
    try:
        read(folder, content, overrides=overrides, environ=environ)
    except SettingsError as error:
        return [str(mistake).replace(str(folder / "config.yaml"), "F") for mistake in error.mistakes]
    return []
