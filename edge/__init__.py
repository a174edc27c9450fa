"""The edge: phones on one side, topics on the other. It speaks SIP and keeps nothing durable.

Pure, told the time:

- `core`: messages in; responses, commands and named drops (`actions`) out; holds the server transactions
- `register`: what a REGISTER says, and the Contact rows of its 200
- `credentials`: which credentials count, and challenges
- `response`: the bytes of responses, and where they go (RFC 3261 section 18.2.2, RFC 3581)
- `transactions`: the non-INVITE server transactions (RFC 3261 section 17.2.2) and their timers
- `flow`, `token`: a way to a phone, and its unforgeable name (Path)
- `settings`: what the core is told once; `clock`: the log's time
- `rate`: a token bucket per source; `stun`: Binding responses

The shell:

- `udp`, `tcp`: sockets; `transport`: joins them with the core
- `publisher`, `replies`, `leases`: the topics
- `location`: the query by which any edge routes
- `config`, `service`: settings and wiring
"""
