-- The keys of the analysts' pseudonyms (events/pseudonyms.py), one a person, 64 hex digits; that of '' is the view's
-- own. Whoever deletes a person's makes nobody of the pseudonym. No analyst's account may read this table.
CREATE TABLE IF NOT EXISTS person_keys (
    person VARCHAR(255) PRIMARY KEY NOT NULL,
    secret CHAR(64) NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
