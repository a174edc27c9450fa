"""SIP (RFC 3261 and what amends it) as values and pure functions; the standard library only.

No I/O, clock or randomness: time, salts and keys are arguments.

parser        octets -> `Request | Response`, or `ParseError`
errors        `ParseError`, which knows its status code
message       the messages, `respond()`, `with_received()` and the octets of them
headers       names: long, compact, which are lists, which stand once
grammar       productions that several headers share (25.1)
address, uri  what stands in From, To, Contact, Route, Via
causes        Reason (RFC 3326)
session_timer Session-Expires, Min-SE (RFC 4028)
sdp           the names of codecs (RFC 8866)
telephone     numbers (RFC 3966) and a domain's dialling rule
reasons       status codes and their phrases
digest        RFC 7616 and RFC 8760
nonce         nonces that need no store
mac           HMACs of what only we can make
proxy         steps of a proxy that need nothing but the message (16)
hop_by_hop    ACK to a non-2xx, and CANCEL (17.1.1.3, 9.1)
transaction   the four state machines as tables (17, RFC 6026, RFC 4320)
timers        theirs: one that repeats, one that ends a state
transactions  the layer that drives them
"""
