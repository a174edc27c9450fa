-- The same tables as schema/mysql/001_location.sql, which explains them. SQLite keeps no widths: a CHECK
-- refuses what MySQL would refuse, so that the two implementations of the port are one.

CREATE TABLE IF NOT EXISTS version (
    table_name TEXT NOT NULL UNIQUE,
    table_version INTEGER DEFAULT 0 NOT NULL
);

CREATE TABLE IF NOT EXISTS location (
    contact_id INTEGER PRIMARY KEY NOT NULL,
    username TEXT DEFAULT '' NOT NULL CHECK (length(username) <= 64),
    domain TEXT DEFAULT NULL CHECK (length(domain) <= 64),
    contact TEXT NOT NULL,
    received TEXT DEFAULT NULL CHECK (length(received) <= 255),
    path TEXT DEFAULT NULL CHECK (length(path) <= 1024),
    expires INTEGER NOT NULL CHECK (expires BETWEEN 0 AND 4294967295),
    q REAL DEFAULT 1.0 NOT NULL,
    callid TEXT DEFAULT 'Default-Call-ID' NOT NULL CHECK (length(callid) <= 255),
    cseq INTEGER DEFAULT 13 NOT NULL CHECK (cseq BETWEEN 0 AND 4294967295),
    last_modified TEXT DEFAULT '1900-01-01 00:00:01' NOT NULL,
    flags INTEGER DEFAULT 0 NOT NULL,
    cflags TEXT DEFAULT NULL,
    user_agent TEXT DEFAULT '' NOT NULL CHECK (length(user_agent) <= 255),
    socket TEXT DEFAULT NULL CHECK (length(socket) <= 64),
    methods INTEGER DEFAULT NULL,
    sip_instance TEXT DEFAULT NULL CHECK (length(sip_instance) <= 255),
    kv_store TEXT DEFAULT NULL,
    attr TEXT DEFAULT NULL,
    reg_id INTEGER DEFAULT NULL CHECK (reg_id BETWEEN 0 AND 4294967295),
    params TEXT DEFAULT '' NOT NULL CHECK (length(params) <= 1024),
    granted INTEGER DEFAULT 0 NOT NULL CHECK (granted BETWEEN 0 AND 4294967295),
    expires_ms INTEGER DEFAULT 0 NOT NULL,
    created_ms INTEGER DEFAULT 0 NOT NULL,
    updated_ms INTEGER DEFAULT 0 NOT NULL,
    partition_no INTEGER DEFAULT 0 NOT NULL
);

CREATE INDEX IF NOT EXISTS location_account_idx ON location (username, domain);

CREATE INDEX IF NOT EXISTS location_contact_idx ON location (contact);

INSERT OR IGNORE INTO version (table_name, table_version) VALUES ('location', 1013);

CREATE TABLE IF NOT EXISTS registration_history (
    contact_id INTEGER NOT NULL,
    began_offset INTEGER NOT NULL,
    partition_no INTEGER NOT NULL,
    username TEXT NOT NULL,
    domain TEXT NOT NULL,
    contact TEXT NOT NULL,
    received TEXT NOT NULL,
    path TEXT NOT NULL,
    socket TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    began TEXT NOT NULL,
    began_by TEXT NOT NULL,
    until_ms INTEGER DEFAULT NULL,
    ended TEXT DEFAULT NULL,
    ended_by TEXT DEFAULT NULL,
    ended_offset INTEGER DEFAULT NULL,
    PRIMARY KEY (contact_id, began_offset)
);

CREATE INDEX IF NOT EXISTS history_account_idx ON registration_history (username, domain, since_ms);

CREATE INDEX IF NOT EXISTS history_until_idx ON registration_history (until_ms);

CREATE TABLE IF NOT EXISTS projection_offset (
    projection TEXT NOT NULL,
    partition_no INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    claim INTEGER NOT NULL,
    PRIMARY KEY (projection, partition_no)
);
