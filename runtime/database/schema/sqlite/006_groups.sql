-- The same table as schema/mysql/006_groups.sql.

CREATE TABLE IF NOT EXISTS grp (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    username TEXT DEFAULT '' NOT NULL CHECK (length(username) <= 64),
    domain TEXT DEFAULT '' NOT NULL CHECK (length(domain) <= 64),
    grp TEXT DEFAULT '' NOT NULL CHECK (length(grp) <= 64),
    last_modified TEXT DEFAULT '1900-01-01 00:00:01' NOT NULL,
    UNIQUE (username, domain, grp)
);

INSERT OR IGNORE INTO version (table_name, table_version) VALUES ('grp', 3);
