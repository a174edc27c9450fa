"""I/O that the services share: the log, the database, configuration, HTTP, logs.

Only this package touches aiokafka, aiomysql and sqlite3. Their errors are mapped to
the ones of `runtime.errors` at this border.
"""
