"""`ramal trace`: OpenTelemetry traces of registrations and calls, made of the log while it is written.

The log already has who did what when: so no service does anything for it, and it is off where nobody runs it.
`spans` makes traces of records, `otlp` says them to a collector, `follow` reads the topics.
"""
