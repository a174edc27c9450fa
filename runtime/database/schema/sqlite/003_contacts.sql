-- Bindings are found by their Contact too: an index that tables made before it do not have.

CREATE INDEX IF NOT EXISTS location_contact_idx ON location (contact);
