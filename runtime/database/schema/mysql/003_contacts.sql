-- Bindings are found by their Contact too: an index that tables made before it do not have.
-- MySQL has no CREATE INDEX IF NOT EXISTS, as MariaDB has.

SET @ramal_index = IF(
    EXISTS (
        SELECT 1 FROM information_schema.statistics
        WHERE table_schema = DATABASE() AND table_name = 'location' AND index_name = 'contact_idx'
    ),
    'DO 0',
    'CREATE INDEX contact_idx ON location (contact(128))'
);

PREPARE ramal_index FROM @ramal_index;

EXECUTE ramal_index;

DEALLOCATE PREPARE ramal_index;
