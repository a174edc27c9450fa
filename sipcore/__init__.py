"""SIP (RFC 3261 and what amends it) as values and pure functions; the standard library only.

No I/O, clock or randomness: time, salts and keys are arguments.

- `parser`: bytes -> `Request | Response`, or `ParseError`, which knows its status code
- `message`: the messages, `respond()`, `with_received()` and the bytes of them
- `address`, `uri`, `grammar`, `headers`: what is inside of a header
- `digest`, `nonce`: RFC 7616 and RFC 8760; nonces that need no store
- `transaction`, `transactions`: the four state machines as tables, and the layer that drives them
"""
