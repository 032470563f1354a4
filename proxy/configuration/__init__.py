"""How does text become settings? File, environment and `--set` in; values or mistakes with positions out.

Nothing here knows a section by name: the sections' types live beside their rooms and drive the reading.
Nothing here keeps anything. The way: `files` → `tree` (which asks `scalars`) → `overrides` →
`convert` (which asks `references`). `documents` goes it for a small file of its own.
"""
