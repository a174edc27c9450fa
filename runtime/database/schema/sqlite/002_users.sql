-- The same tables as schema/mysql/002_users.sql.

CREATE TABLE IF NOT EXISTS subscriber (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    username TEXT DEFAULT '' NOT NULL CHECK (length(username) <= 64),
    domain TEXT DEFAULT '' NOT NULL CHECK (length(domain) <= 64),
    password TEXT DEFAULT '' NOT NULL CHECK (length(password) <= 25),
    email_address TEXT DEFAULT '' NOT NULL CHECK (length(email_address) <= 64),
    ha1 TEXT DEFAULT '' NOT NULL CHECK (length(ha1) <= 64),
    ha1_sha256 TEXT DEFAULT '' NOT NULL CHECK (length(ha1_sha256) <= 64),
    ha1_sha512t256 TEXT DEFAULT '' NOT NULL CHECK (length(ha1_sha512t256) <= 64),
    rpid TEXT DEFAULT NULL CHECK (length(rpid) <= 64),
    UNIQUE (username, domain)
);

INSERT OR IGNORE INTO version (table_name, table_version) VALUES ('subscriber', 8);

CREATE TABLE IF NOT EXISTS dbaliases (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    alias_username TEXT DEFAULT '' NOT NULL CHECK (length(alias_username) <= 64),
    alias_domain TEXT DEFAULT '' NOT NULL CHECK (length(alias_domain) <= 64),
    username TEXT DEFAULT '' NOT NULL CHECK (length(username) <= 64),
    domain TEXT DEFAULT '' NOT NULL CHECK (length(domain) <= 64),
    UNIQUE (alias_username, alias_domain)
);

CREATE INDEX IF NOT EXISTS dbaliases_target_idx ON dbaliases (username, domain);

INSERT OR IGNORE INTO version (table_name, table_version) VALUES ('dbaliases', 2);
