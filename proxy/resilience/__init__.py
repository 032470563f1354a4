"""What if it fails? Stages: Permit → `Reply`.

In: a `Permit`. Out: the `Reply` of the next stage, after as many attempts as it may cost and within its time, or
`Refused` with words that say what became of the call. Keeps how often the server failed of late, and how many
attempts were repeated.

    settings.py      what can be configured
    signals.py       what an outcome says of the server, and what may be repeated: pure
    retrying.py      a stage: attempts
    attempts.py      what became of one: pure
    hedging.py       two attempts at once, the first answer wins
    backoff.py       how long to wait before the next one: pure
    budget.py        how many there may be: pure
    idempotency.py   one key for all attempts of a call
    deadlines.py     when a call is over, and the stage that ends it
    worded.py        a stage: an error without a word gets some
    renewing.py      a stage: begins sessions anew that the server has lost
    handshakes.py    how they began: pure
    guarding.py      a stage: leaves a failing server, or a failing tool, alone
    breaker.py       when is it left alone, and when tried again? pure
    quarantine.py    the same for one tool: pure
"""
