-- From when `registration_history` is whole, in milliseconds of Unix time: what had ended before that was deleted by its
-- age. One row, or none while nothing has been deleted.
CREATE TABLE IF NOT EXISTS history_kept (
    id INTEGER PRIMARY KEY NOT NULL,
    since_ms INTEGER NOT NULL
);
