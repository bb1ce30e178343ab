"""Every error code, once, with its page: what it means and what to do. `dropless explain CODE` prints it."""

from dropless.errors.codes import (
    contract,
    ledger,
    plan,
    protocol,
    prove,
    sink,
    source,
    spec,
    state,
    transform,
    undo,
    verify,
)

CODES: dict[str, str] = {}
for _family in (spec, plan, contract, source, sink, protocol, ledger, state, transform, undo, verify, prove):
    _twice = CODES.keys() & _family.CODES.keys()
    if _twice:
        raise RuntimeError(f"error codes registered twice: {sorted(_twice)}")
    CODES.update(_family.CODES)
