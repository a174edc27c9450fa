-- What calls happened, made of the topic `calls`. Ids come from the log: offset of a call's first event << 10 | partition.

-- OpenSIPS 3.x' columns first, under its names and in its order, then ours; times are UTC. Different from OpenSIPS:
-- id is made of the offset of the call's first event (twice it, and 1 more for a BYE), texts are wider, and a call that
-- was answered has both its INVITE row, with duration, and a BYE row. src_user to dst_domain are those of Kamailio's
-- documents; cdr_id is for who makes CDRs of these rows by a procedure, and never written by us.
CREATE TABLE IF NOT EXISTS acc (
    id BIGINT UNSIGNED PRIMARY KEY NOT NULL,
    method CHAR(16) DEFAULT '' NOT NULL,
    from_tag VARCHAR(128) DEFAULT '' NOT NULL,
    to_tag VARCHAR(128) DEFAULT '' NOT NULL,
    callid VARCHAR(255) DEFAULT '' NOT NULL,
    sip_code CHAR(3) DEFAULT '' NOT NULL,
    sip_reason CHAR(32) DEFAULT '' NOT NULL,
    time DATETIME NOT NULL,
    duration INT UNSIGNED DEFAULT 0 NOT NULL,
    ms_duration INT UNSIGNED DEFAULT 0 NOT NULL,
    setuptime INT UNSIGNED DEFAULT 0 NOT NULL,
    created DATETIME DEFAULT NULL,
    caller_tag VARCHAR(128) DEFAULT '' NOT NULL,
    cseq INT UNSIGNED DEFAULT 0 NOT NULL,
    src_user VARCHAR(255) DEFAULT '' NOT NULL,
    src_domain VARCHAR(255) DEFAULT '' NOT NULL,
    src_ip VARCHAR(255) DEFAULT '' NOT NULL,
    dst_ouser VARCHAR(255) DEFAULT '' NOT NULL,
    dst_user VARCHAR(255) DEFAULT '' NOT NULL,
    dst_domain VARCHAR(255) DEFAULT '' NOT NULL,
    cdr_id INT UNSIGNED DEFAULT 0 NOT NULL,
    time_ms BIGINT DEFAULT 0 NOT NULL,
    partition_no SMALLINT UNSIGNED DEFAULT 0 NOT NULL,
    INDEX callid_idx (callid),
    INDEX time_idx (time)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT IGNORE INTO version (table_name, table_version) VALUES ('acc', 7);

-- One row for each call that a user of ours has missed, however many phones rang.
CREATE TABLE IF NOT EXISTS missed_calls (
    id BIGINT UNSIGNED PRIMARY KEY NOT NULL,
    method CHAR(16) DEFAULT '' NOT NULL,
    from_tag VARCHAR(128) DEFAULT '' NOT NULL,
    to_tag VARCHAR(128) DEFAULT '' NOT NULL,
    callid VARCHAR(255) DEFAULT '' NOT NULL,
    sip_code CHAR(3) DEFAULT '' NOT NULL,
    sip_reason CHAR(32) DEFAULT '' NOT NULL,
    time DATETIME NOT NULL,
    setuptime INT UNSIGNED DEFAULT 0 NOT NULL,
    created DATETIME DEFAULT NULL,
    cseq INT UNSIGNED DEFAULT 0 NOT NULL,
    src_user VARCHAR(255) DEFAULT '' NOT NULL,
    src_domain VARCHAR(255) DEFAULT '' NOT NULL,
    src_ip VARCHAR(255) DEFAULT '' NOT NULL,
    dst_ouser VARCHAR(255) DEFAULT '' NOT NULL,
    dst_user VARCHAR(255) DEFAULT '' NOT NULL,
    dst_domain VARCHAR(255) DEFAULT '' NOT NULL,
    time_ms BIGINT DEFAULT 0 NOT NULL,
    partition_no SMALLINT UNSIGNED DEFAULT 0 NOT NULL,
    INDEX callid_idx (callid),
    INDEX missed_idx (dst_user, dst_domain, time_ms)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT IGNORE INTO version (table_name, table_version) VALUES ('missed_calls', 5);

-- One row a call that has ended: the fields of events/cdrs.py. `state` is what its events say (cdr/state.py), so that a
-- late one corrects the row; last_offset is that of the last event that counted; published: the record is on `cdrs`.
CREATE TABLE IF NOT EXISTS cdrs (
    id BIGINT UNSIGNED PRIMARY KEY NOT NULL,
    call_id VARCHAR(255) DEFAULT '' NOT NULL,
    from_tag VARCHAR(128) DEFAULT '' NOT NULL,
    cseq INT UNSIGNED DEFAULT 0 NOT NULL,
    to_tag VARCHAR(128) DEFAULT '' NOT NULL,
    outcome VARCHAR(12) DEFAULT '' NOT NULL,
    caller VARCHAR(255) DEFAULT '' NOT NULL,
    callee VARCHAR(255) DEFAULT '' NOT NULL,
    ours TINYINT DEFAULT 0 NOT NULL,
    dialled VARCHAR(255) DEFAULT '' NOT NULL,
    answered_by VARCHAR(255) DEFAULT '' NOT NULL,
    attempted_ms BIGINT DEFAULT 0 NOT NULL,
    rang_ms BIGINT DEFAULT NULL,
    answered_ms BIGINT DEFAULT NULL,
    ended_ms BIGINT DEFAULT NULL,
    setup_ms BIGINT DEFAULT 0 NOT NULL,
    talk_ms BIGINT DEFAULT 0 NOT NULL,
    code SMALLINT UNSIGNED DEFAULT 0 NOT NULL,
    phrase VARCHAR(255) DEFAULT '' NOT NULL,
    reason VARCHAR(255) DEFAULT '' NOT NULL,
    cause SMALLINT UNSIGNED DEFAULT 0 NOT NULL,
    hung_up VARCHAR(8) DEFAULT '' NOT NULL,
    missed TINYINT DEFAULT 0 NOT NULL,
    edges VARCHAR(1040) DEFAULT '' NOT NULL,
    source VARCHAR(255) DEFAULT '' NOT NULL,
    caller_transport VARCHAR(8) DEFAULT '' NOT NULL,
    callee_transport VARCHAR(8) DEFAULT '' NOT NULL,
    caller_agent VARCHAR(255) DEFAULT '' NOT NULL,
    callee_agent VARCHAR(255) DEFAULT '' NOT NULL,
    codecs VARCHAR(528) DEFAULT '' NOT NULL,
    gateway VARCHAR(128) DEFAULT '' NOT NULL,
    branches SMALLINT UNSIGNED DEFAULT 0 NOT NULL,
    transferred_to VARCHAR(255) DEFAULT '' NOT NULL,
    session_expires INT UNSIGNED DEFAULT 0 NOT NULL,
    incomplete TINYINT DEFAULT 0 NOT NULL,
    estimated TINYINT DEFAULT 0 NOT NULL,
    partition_no SMALLINT UNSIGNED DEFAULT 0 NOT NULL,
    last_offset BIGINT DEFAULT 0 NOT NULL,
    published TINYINT DEFAULT 0 NOT NULL,
    state MEDIUMTEXT NOT NULL,
    INDEX call_idx (call_id),
    INDEX attempted_idx (attempted_ms),
    INDEX unpublished_idx (published, partition_no)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- One row a call that has no end yet; it is closed when nothing is heard of it until deadline_ms.
CREATE TABLE IF NOT EXISTS open_calls (
    id BIGINT UNSIGNED PRIMARY KEY NOT NULL,
    call_id VARCHAR(255) DEFAULT '' NOT NULL,
    from_tag VARCHAR(128) DEFAULT '' NOT NULL,
    cseq INT UNSIGNED DEFAULT 0 NOT NULL,
    caller VARCHAR(255) DEFAULT '' NOT NULL,
    callee VARCHAR(255) DEFAULT '' NOT NULL,
    dialled VARCHAR(255) DEFAULT '' NOT NULL,
    progress VARCHAR(12) DEFAULT '' NOT NULL,
    attempted_ms BIGINT DEFAULT 0 NOT NULL,
    answered_ms BIGINT DEFAULT NULL,
    edges VARCHAR(1040) DEFAULT '' NOT NULL,
    deadline_ms BIGINT DEFAULT 0 NOT NULL,
    partition_no SMALLINT UNSIGNED DEFAULT 0 NOT NULL,
    last_offset BIGINT DEFAULT 0 NOT NULL,
    state MEDIUMTEXT NOT NULL,
    INDEX call_idx (call_id),
    INDEX deadline_idx (deadline_ms)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
