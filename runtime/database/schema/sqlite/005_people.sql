-- The same table as schema/mysql/005_people.sql, which explains it.

CREATE TABLE IF NOT EXISTS person_keys (
    person TEXT PRIMARY KEY NOT NULL CHECK (length(person) <= 255),
    secret TEXT NOT NULL
);
