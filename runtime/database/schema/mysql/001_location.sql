-- Who is registered where, who was, and how far the log is in these tables.
-- Every statement may be run again: `rebuild` recreates what was dropped.
-- utf8mb4_bin: a SIP user is compared with its case (RFC 3261 section 19.1.4), hosts are stored in lower case.

CREATE TABLE IF NOT EXISTS version (
    table_name CHAR(32) NOT NULL,
    table_version INT UNSIGNED DEFAULT 0 NOT NULL,
    CONSTRAINT t_name_idx UNIQUE (table_name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- OpenSIPS 3.x' columns first, under its names and in its order, then ours. It checks `version`.
-- contact_id is our binding id, from the log. Different from OpenSIPS: path is longer (the widths are
-- those of events/limits.py), cseq is unsigned (RFC 3261 section 8.1.1.5), there are indexes, and texts are VARCHAR:
-- InnoDB keeps a CHAR(255) as 255 octets at least, which made a row 2.5 times as large.
-- expires is in Unix seconds, rounded up; expires_ms is exact.
CREATE TABLE IF NOT EXISTS location (
    contact_id BIGINT UNSIGNED PRIMARY KEY NOT NULL,
    username VARCHAR(64) DEFAULT '' NOT NULL,
    domain VARCHAR(64) DEFAULT NULL,
    contact TEXT NOT NULL,
    received VARCHAR(255) DEFAULT NULL,
    path VARCHAR(1024) DEFAULT NULL,
    expires INT UNSIGNED NOT NULL,
    q FLOAT(10,2) DEFAULT 1.0 NOT NULL,
    callid VARCHAR(255) DEFAULT 'Default-Call-ID' NOT NULL,
    cseq INT UNSIGNED DEFAULT 13 NOT NULL,
    last_modified DATETIME DEFAULT '1900-01-01 00:00:01' NOT NULL,
    flags INT DEFAULT 0 NOT NULL,
    cflags VARCHAR(255) DEFAULT NULL,
    user_agent VARCHAR(255) DEFAULT '' NOT NULL,
    socket VARCHAR(64) DEFAULT NULL,
    methods INT DEFAULT NULL,
    sip_instance VARCHAR(255) DEFAULT NULL,
    kv_store TEXT DEFAULT NULL,
    attr VARCHAR(255) DEFAULT NULL,
    reg_id INT UNSIGNED DEFAULT NULL,
    params VARCHAR(1024) DEFAULT '' NOT NULL,
    granted INT UNSIGNED DEFAULT 0 NOT NULL,
    expires_ms BIGINT DEFAULT 0 NOT NULL,
    created_ms BIGINT DEFAULT 0 NOT NULL,
    updated_ms BIGINT DEFAULT 0 NOT NULL,
    partition_no SMALLINT UNSIGNED DEFAULT 0 NOT NULL,
    INDEX account_idx (username, domain),
    INDEX contact_idx (contact(128))
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT IGNORE INTO version (table_name, table_version) VALUES ('location', 1013);

-- One row an interval of a binding at one place. Times are milliseconds in the log's time; offsets are those
-- of the records on `registrations` that began and ended it. until_ms is NULL while it lasts.
CREATE TABLE IF NOT EXISTS registration_history (
    contact_id BIGINT UNSIGNED NOT NULL,
    began_offset BIGINT NOT NULL,
    partition_no SMALLINT UNSIGNED NOT NULL,
    username VARCHAR(64) NOT NULL,
    domain VARCHAR(64) NOT NULL,
    contact VARCHAR(1024) NOT NULL,
    received VARCHAR(255) NOT NULL,
    path VARCHAR(1024) NOT NULL,
    socket VARCHAR(64) NOT NULL,
    user_agent VARCHAR(255) NOT NULL,
    since_ms BIGINT NOT NULL,
    began VARCHAR(12) NOT NULL,
    began_by VARCHAR(255) NOT NULL,
    until_ms BIGINT DEFAULT NULL,
    ended VARCHAR(12) DEFAULT NULL,
    ended_by VARCHAR(255) DEFAULT NULL,
    ended_offset BIGINT DEFAULT NULL,
    PRIMARY KEY (contact_id, began_offset),
    INDEX account_idx (username, domain, since_ms),
    INDEX until_idx (until_ms)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- The next offset to apply and the highest claim seen; written in one transaction with the rows.
CREATE TABLE IF NOT EXISTS projection_offset (
    projection VARCHAR(64) NOT NULL,
    partition_no SMALLINT UNSIGNED NOT NULL,
    next_offset BIGINT NOT NULL,
    claim BIGINT NOT NULL,
    PRIMARY KEY (projection, partition_no)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
