-- The HA1s of users of LDAP who have enrolled, each sealed by AES-256-GCM (authsvc/users/sealing.py); '' when retired.
-- Times are milliseconds since 1970. OpenSIPS has no such table.

CREATE TABLE IF NOT EXISTS enrolled (
    username CHAR(64) NOT NULL,
    domain CHAR(64) NOT NULL,
    key_id CHAR(8) NOT NULL,
    ha1 VARCHAR(96) DEFAULT '' NOT NULL,
    ha1_sha256 VARCHAR(96) DEFAULT '' NOT NULL,
    ha1_sha512t256 VARCHAR(96) DEFAULT '' NOT NULL,
    password CHAR(16) NOT NULL,
    enrolled_at BIGINT NOT NULL,
    password_changed VARCHAR(32) DEFAULT '' NOT NULL,
    modified VARCHAR(32) DEFAULT '' NOT NULL,
    retired_at BIGINT DEFAULT 0 NOT NULL,
    retired_for CHAR(32) DEFAULT '' NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (username, domain),
    INDEX changed_idx (changed_at),
    INDEX key_idx (key_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
