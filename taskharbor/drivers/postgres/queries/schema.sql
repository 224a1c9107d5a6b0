-- find_migrations: -> the table of applied migrations, NULL without one
SELECT to_regclass('th.migrations');

-- last_migration: -> number of the last migration applied, 0 for none
SELECT coalesce(max(number), 0) FROM th.migrations;
