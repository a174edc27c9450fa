"""The log: Kafka or embedded, behind one port (`runtime.log.port`) with one contract suite (tests/contract)."""
