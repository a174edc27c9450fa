-- The same tables as schema/mysql/004_calls.sql, which explains them.

CREATE TABLE IF NOT EXISTS acc (
    id INTEGER PRIMARY KEY NOT NULL,
    method TEXT DEFAULT '' NOT NULL CHECK (length(method) <= 16),
    from_tag TEXT DEFAULT '' NOT NULL CHECK (length(from_tag) <= 128),
    to_tag TEXT DEFAULT '' NOT NULL CHECK (length(to_tag) <= 128),
    callid TEXT DEFAULT '' NOT NULL CHECK (length(callid) <= 255),
    sip_code TEXT DEFAULT '' NOT NULL CHECK (length(sip_code) <= 3),
    sip_reason TEXT DEFAULT '' NOT NULL CHECK (length(sip_reason) <= 32),
    time TEXT NOT NULL,
    duration INTEGER DEFAULT 0 NOT NULL CHECK (duration BETWEEN 0 AND 4294967295),
    ms_duration INTEGER DEFAULT 0 NOT NULL CHECK (ms_duration BETWEEN 0 AND 4294967295),
    setuptime INTEGER DEFAULT 0 NOT NULL CHECK (setuptime BETWEEN 0 AND 4294967295),
    created TEXT DEFAULT NULL,
    caller_tag TEXT DEFAULT '' NOT NULL CHECK (length(caller_tag) <= 128),
    cseq INTEGER DEFAULT 0 NOT NULL CHECK (cseq BETWEEN 0 AND 4294967295),
    src_user TEXT DEFAULT '' NOT NULL CHECK (length(src_user) <= 255),
    src_domain TEXT DEFAULT '' NOT NULL CHECK (length(src_domain) <= 255),
    src_ip TEXT DEFAULT '' NOT NULL CHECK (length(src_ip) <= 255),
    dst_ouser TEXT DEFAULT '' NOT NULL CHECK (length(dst_ouser) <= 255),
    dst_user TEXT DEFAULT '' NOT NULL CHECK (length(dst_user) <= 255),
    dst_domain TEXT DEFAULT '' NOT NULL CHECK (length(dst_domain) <= 255),
    cdr_id INTEGER DEFAULT 0 NOT NULL CHECK (cdr_id BETWEEN 0 AND 4294967295),
    time_ms INTEGER DEFAULT 0 NOT NULL,
    partition_no INTEGER DEFAULT 0 NOT NULL
);

CREATE INDEX IF NOT EXISTS acc_callid_idx ON acc (callid);

CREATE INDEX IF NOT EXISTS acc_time_idx ON acc (time);

INSERT OR IGNORE INTO version (table_name, table_version) VALUES ('acc', 7);

CREATE TABLE IF NOT EXISTS missed_calls (
    id INTEGER PRIMARY KEY NOT NULL,
    method TEXT DEFAULT '' NOT NULL CHECK (length(method) <= 16),
    from_tag TEXT DEFAULT '' NOT NULL CHECK (length(from_tag) <= 128),
    to_tag TEXT DEFAULT '' NOT NULL CHECK (length(to_tag) <= 128),
    callid TEXT DEFAULT '' NOT NULL CHECK (length(callid) <= 255),
    sip_code TEXT DEFAULT '' NOT NULL CHECK (length(sip_code) <= 3),
    sip_reason TEXT DEFAULT '' NOT NULL CHECK (length(sip_reason) <= 32),
    time TEXT NOT NULL,
    setuptime INTEGER DEFAULT 0 NOT NULL CHECK (setuptime BETWEEN 0 AND 4294967295),
    created TEXT DEFAULT NULL,
    cseq INTEGER DEFAULT 0 NOT NULL CHECK (cseq BETWEEN 0 AND 4294967295),
    src_user TEXT DEFAULT '' NOT NULL CHECK (length(src_user) <= 255),
    src_domain TEXT DEFAULT '' NOT NULL CHECK (length(src_domain) <= 255),
    src_ip TEXT DEFAULT '' NOT NULL CHECK (length(src_ip) <= 255),
    dst_ouser TEXT DEFAULT '' NOT NULL CHECK (length(dst_ouser) <= 255),
    dst_user TEXT DEFAULT '' NOT NULL CHECK (length(dst_user) <= 255),
    dst_domain TEXT DEFAULT '' NOT NULL CHECK (length(dst_domain) <= 255),
    time_ms INTEGER DEFAULT 0 NOT NULL,
    partition_no INTEGER DEFAULT 0 NOT NULL
);

CREATE INDEX IF NOT EXISTS missed_calls_callid_idx ON missed_calls (callid);

CREATE INDEX IF NOT EXISTS missed_calls_missed_idx ON missed_calls (dst_user, dst_domain, time_ms);

INSERT OR IGNORE INTO version (table_name, table_version) VALUES ('missed_calls', 5);

CREATE TABLE IF NOT EXISTS cdrs (
    id INTEGER PRIMARY KEY NOT NULL,
    call_id TEXT DEFAULT '' NOT NULL CHECK (length(call_id) <= 255),
    from_tag TEXT DEFAULT '' NOT NULL CHECK (length(from_tag) <= 128),
    cseq INTEGER DEFAULT 0 NOT NULL CHECK (cseq BETWEEN 0 AND 4294967295),
    to_tag TEXT DEFAULT '' NOT NULL CHECK (length(to_tag) <= 128),
    outcome TEXT DEFAULT '' NOT NULL CHECK (length(outcome) <= 12),
    caller TEXT DEFAULT '' NOT NULL CHECK (length(caller) <= 255),
    callee TEXT DEFAULT '' NOT NULL CHECK (length(callee) <= 255),
    ours INTEGER DEFAULT 0 NOT NULL,
    dialled TEXT DEFAULT '' NOT NULL CHECK (length(dialled) <= 255),
    answered_by TEXT DEFAULT '' NOT NULL CHECK (length(answered_by) <= 255),
    attempted_ms INTEGER DEFAULT 0 NOT NULL,
    rang_ms INTEGER DEFAULT NULL,
    answered_ms INTEGER DEFAULT NULL,
    ended_ms INTEGER DEFAULT NULL,
    setup_ms INTEGER DEFAULT 0 NOT NULL,
    talk_ms INTEGER DEFAULT 0 NOT NULL,
    code INTEGER DEFAULT 0 NOT NULL,
    phrase TEXT DEFAULT '' NOT NULL CHECK (length(phrase) <= 255),
    reason TEXT DEFAULT '' NOT NULL CHECK (length(reason) <= 255),
    cause INTEGER DEFAULT 0 NOT NULL,
    hung_up TEXT DEFAULT '' NOT NULL CHECK (length(hung_up) <= 8),
    missed INTEGER DEFAULT 0 NOT NULL,
    edges TEXT DEFAULT '' NOT NULL CHECK (length(edges) <= 1040),
    source TEXT DEFAULT '' NOT NULL CHECK (length(source) <= 255),
    caller_transport TEXT DEFAULT '' NOT NULL CHECK (length(caller_transport) <= 8),
    callee_transport TEXT DEFAULT '' NOT NULL CHECK (length(callee_transport) <= 8),
    caller_agent TEXT DEFAULT '' NOT NULL CHECK (length(caller_agent) <= 255),
    callee_agent TEXT DEFAULT '' NOT NULL CHECK (length(callee_agent) <= 255),
    codecs TEXT DEFAULT '' NOT NULL CHECK (length(codecs) <= 528),
    gateway TEXT DEFAULT '' NOT NULL CHECK (length(gateway) <= 128),
    branches INTEGER DEFAULT 0 NOT NULL,
    transferred_to TEXT DEFAULT '' NOT NULL CHECK (length(transferred_to) <= 255),
    session_expires INTEGER DEFAULT 0 NOT NULL CHECK (session_expires BETWEEN 0 AND 4294967295),
    incomplete INTEGER DEFAULT 0 NOT NULL,
    estimated INTEGER DEFAULT 0 NOT NULL,
    partition_no INTEGER DEFAULT 0 NOT NULL,
    last_offset INTEGER DEFAULT 0 NOT NULL,
    published INTEGER DEFAULT 0 NOT NULL,
    state TEXT NOT NULL
);

CREATE INDEX IF NOT EXISTS cdrs_call_idx ON cdrs (call_id);

CREATE INDEX IF NOT EXISTS cdrs_attempted_idx ON cdrs (attempted_ms);

CREATE INDEX IF NOT EXISTS cdrs_unpublished_idx ON cdrs (published, partition_no);

CREATE TABLE IF NOT EXISTS open_calls (
    id INTEGER PRIMARY KEY NOT NULL,
    call_id TEXT DEFAULT '' NOT NULL CHECK (length(call_id) <= 255),
    from_tag TEXT DEFAULT '' NOT NULL CHECK (length(from_tag) <= 128),
    cseq INTEGER DEFAULT 0 NOT NULL CHECK (cseq BETWEEN 0 AND 4294967295),
    caller TEXT DEFAULT '' NOT NULL CHECK (length(caller) <= 255),
    callee TEXT DEFAULT '' NOT NULL CHECK (length(callee) <= 255),
    dialled TEXT DEFAULT '' NOT NULL CHECK (length(dialled) <= 255),
    progress TEXT DEFAULT '' NOT NULL CHECK (length(progress) <= 12),
    attempted_ms INTEGER DEFAULT 0 NOT NULL,
    answered_ms INTEGER DEFAULT NULL,
    edges TEXT DEFAULT '' NOT NULL CHECK (length(edges) <= 1040),
    deadline_ms INTEGER DEFAULT 0 NOT NULL,
    partition_no INTEGER DEFAULT 0 NOT NULL,
    last_offset INTEGER DEFAULT 0 NOT NULL,
    state TEXT NOT NULL
);

CREATE INDEX IF NOT EXISTS open_calls_call_idx ON open_calls (call_id);

CREATE INDEX IF NOT EXISTS open_calls_deadline_idx ON open_calls (deadline_ms);
