"""The tables: MySQL/MariaDB or SQLite, behind one port (`runtime.database.port`)."""
