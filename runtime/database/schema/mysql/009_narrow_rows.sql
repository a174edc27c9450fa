-- Texts of `location` and its history as VARCHAR, which earlier tables had as CHAR: InnoDB keeps those as wide as they are
-- declared. To change them copies the table, and nobody registers meanwhile (1 s for 100,000 rows on a quiet machine), so
-- larger ones stay as they are, and right, until somebody chooses the hour (docs/operating.md, Upgrading).

SET @ramal_small = (SELECT COUNT(*) FROM (SELECT 1 FROM location LIMIT 100001) AS counted) <= 100000
    AND (SELECT COUNT(*) FROM (SELECT 1 FROM registration_history LIMIT 100001) AS counted) <= 100000;

SET @ramal_narrow = IF(
    @ramal_small AND EXISTS (
        SELECT 1 FROM information_schema.columns
        WHERE table_schema = DATABASE() AND table_name = 'location' AND column_name = 'callid' AND data_type = 'char'
    ),
    'ALTER TABLE location
        MODIFY username VARCHAR(64) DEFAULT '''' NOT NULL,
        MODIFY domain VARCHAR(64) DEFAULT NULL,
        MODIFY received VARCHAR(255) DEFAULT NULL,
        MODIFY callid VARCHAR(255) DEFAULT ''Default-Call-ID'' NOT NULL,
        MODIFY cflags VARCHAR(255) DEFAULT NULL,
        MODIFY user_agent VARCHAR(255) DEFAULT '''' NOT NULL,
        MODIFY socket VARCHAR(64) DEFAULT NULL,
        MODIFY sip_instance VARCHAR(255) DEFAULT NULL,
        MODIFY attr VARCHAR(255) DEFAULT NULL',
    'DO 0'
);

PREPARE ramal_narrow FROM @ramal_narrow;

EXECUTE ramal_narrow;

DEALLOCATE PREPARE ramal_narrow;

SET @ramal_narrow = IF(
    @ramal_small AND EXISTS (
        SELECT 1 FROM information_schema.columns
        WHERE table_schema = DATABASE() AND table_name = 'registration_history' AND column_name = 'username'
            AND data_type = 'char'
    ),
    'ALTER TABLE registration_history MODIFY username VARCHAR(64) NOT NULL, MODIFY domain VARCHAR(64) NOT NULL',
    'DO 0'
);

PREPARE ramal_narrow FROM @ramal_narrow;

EXECUTE ramal_narrow;

DEALLOCATE PREPARE ramal_narrow;
