-- The same table as schema/mysql/007_enrolled.sql.

CREATE TABLE IF NOT EXISTS enrolled (
    username TEXT NOT NULL CHECK (length(username) <= 64),
    domain TEXT NOT NULL CHECK (length(domain) <= 64),
    key_id TEXT NOT NULL CHECK (length(key_id) <= 8),
    ha1 TEXT DEFAULT '' NOT NULL CHECK (length(ha1) <= 96),
    ha1_sha256 TEXT DEFAULT '' NOT NULL CHECK (length(ha1_sha256) <= 96),
    ha1_sha512t256 TEXT DEFAULT '' NOT NULL CHECK (length(ha1_sha512t256) <= 96),
    password TEXT NOT NULL CHECK (length(password) <= 16),
    enrolled_at INTEGER NOT NULL,
    password_changed TEXT DEFAULT '' NOT NULL CHECK (length(password_changed) <= 32),
    modified TEXT DEFAULT '' NOT NULL CHECK (length(modified) <= 32),
    retired_at INTEGER DEFAULT 0 NOT NULL,
    retired_for TEXT DEFAULT '' NOT NULL CHECK (length(retired_for) <= 32),
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (username, domain)
);

CREATE INDEX IF NOT EXISTS enrolled_changed_idx ON enrolled (changed_at);
CREATE INDEX IF NOT EXISTS enrolled_key_idx ON enrolled (key_id);
