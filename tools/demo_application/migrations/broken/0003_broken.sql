-- The newest migration of the behaviour broken_migration.
ALTER TABLE items ADD COLUMN stock INT NOT NULL DEFAULT 0 AFTER no_such_column;
