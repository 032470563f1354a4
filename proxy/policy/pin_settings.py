"""Which definitions of tools were approved, and what may not hide in one? Parts of the `policy` section. Light: `check`
reads it without a loop."""

from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct

Mild: TypeAlias = Literal["report", "hide"]
Action: TypeAlias = Literal["report", "strip", "hide"]


class DefinitionSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of a tool with an odd definition. report: recorded, and it passes. strip: what hides is taken out
    of its texts. hide: it is not listed, and calls of it are refused."""

    invisible: Action = "strip"
    """Characters of no width: zero-width spaces, joiners where nothing joins, soft hyphens, fillers."""

    bidirectional: Action = "strip"
    """Controls that make people read another text than models."""

    tags: Action = "strip"
    """The block U+E0000, a second ASCII that nobody sees."""

    variation_selectors: Action = "strip"
    """Runs of them, or where they select nothing: they carry bytes."""

    escapes: Action = "strip"
    """Terminal escape sequences (ANSI)."""

    controls: Action = "strip"
    """Other control characters but line feed, carriage return and tab; lone surrogates."""

    private_use: Action = "strip"
    """Characters that mean what their font says."""

    unprintable_name: Mild = "hide"
    """Line breaks, controls or hidden characters in the tool's name, or more than 128 characters."""

    unprintable_parameter: Mild = "hide"
    """Something hides in the name of a parameter or another key: it cannot be taken out, calls depend on it."""

    spaced_name: Mild = "report"
    """Spaces in the tool's name."""

    disguised_name: Mild = "hide"
    """Letters of two scripts in one word of the name, or full-width letters."""

    look_alike: Mild = "hide"
    """The name looks like that of another tool: of the list, of the pins or of the rules."""

    duplicate_name: Mild = "hide"
    """Two tools of one list have this name. The second is not listed; calls are refused unless both are the same."""

    too_long: Mild = "hide"
    """A text or the whole definition is longer than the caps below."""

    bad_header: Mild = "hide"
    """An x-mcp-header that breaks the specification's rules; clients must drop such tools anyway."""

    unreadable: Mild = "hide"
    """No object, no name, or nothing that can be compared."""

    remote_ref: Mild = "report"
    """A $ref that leads out of the definition. We never follow it; a client might."""

    encoded_text: Mild = "report"
    """A long text in base64."""

    instructions: Mild = "report"
    """Words that command a model or name well-known secrets."""

    mentions_tools: Mild = "report"
    """The text speaks of another tool, as those do that want to change how it is used."""

    max_description_bytes: Annotated[int, Meta(ge=256, le=1_048_576)] = 8_192
    """Longest single text of a definition."""

    max_definition_bytes: Annotated[int, Meta(ge=1_024, le=4_194_304)] = 65_536
    """Longest definition, written without blanks; those of busy servers reach 30,000."""

    def action_of(self, flag: str) -> Action:
        action: Action = getattr(self, flag)
        return action


FLAGS: Final = tuple(name for name in DefinitionSettings.__struct_fields__ if not name.startswith("max_"))
"""The fixed words."""


class PinSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tool definitions were approved, and what becomes of others."""

    file: Annotated[str, Meta(min_length=1, max_length=4_096)]
    """The lock file; mcp-sidecar pin writes it."""

    on_change: Literal["report", "block"] = "block"
    """A pinned tool whose definition differs, or whose definition goes by another name. block: not listed, and calls
    are refused."""

    on_new: Literal["report", "block"] = "report"
    """A tool without a pin; rules decide who may call it. block: not listed, and calls are refused."""

    on_unseen: Literal["report", "block"] = "report"
    """A call to a pinned tool that nobody has listed since we started. report: it passes, because whoever calls it
    knows a definition that passed us before. block: it is refused until somebody lists the tools."""
