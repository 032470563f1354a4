"""Does the sidecar hold against hostile input? Cases as data in, a verdict per case out.

attack-corpus.yaml says what is sent and what must (not) happen; this package says how that is done and seen:
cases (the file, read strictly) → mint (placeholders; tokens from tokens.py, ids from belongings.py) → client (bytes on
a socket, as the case says) → the sidecar, a real process → fake_upstream (records every byte, answers as fake_server
does or scripts.py says) → evidence → checks (one function per sentence of the corpus) → a verdict. idp.py is the
identity provider, stand.py what stands around one sidecar, poison_stand.py the same where its server lies about its
tools, limit_stand.py the same where callers have no more than allowances.py says, cache_stand.py the same where answers
are kept, trouble_stand.py the same where the server fails, reload_stand.py the same while its settings change,
probes.py what is asked beside a case.
`python -m tests.corpus.run` runs all of it; ATTACK_CORPUS names another file.
deferred.yaml lists what waits for a later room; it may only shrink.
"""
