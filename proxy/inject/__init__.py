"""How does a manifest get its sidecar? Text of manifests and wishes in; the same text with the sidecar added out.

The text is edited at the positions of its YAML nodes and never written anew: comments, quotes, anchors, order and
line ends stay what they were. The way: `nodes` (text → positions) → `spots` (paths into them) → `pods` (asks `server`)
and `services` (what has to be added, from `wishes` and `sidecar`) → `edits` (positions → text, by `writing`) → `proof`
(does the new text say what was meant, and nothing else?). `injecting` goes it, `command` reads and prints. Everything
but `command` is pure; nothing here keeps anything.
"""
