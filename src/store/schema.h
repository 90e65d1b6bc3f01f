/*
 * store/schema - how the database came to be what it is, step by step.
 *
 * Row N brings a database from user_version N to N + 1 and says so itself.
 * Rows are only ever added: a database that somebody has was made by them.
 */
#pragma once

/* Marks the file as ours ("Segu"). */
enum { SCHEMA_APPLICATION = 0x53656775 };

static const char *const schema_migrations[] = {
    "CREATE TABLE version ("
    " id INTEGER PRIMARY KEY,"
    " model TEXT NOT NULL,"
    " name TEXT NOT NULL,"
    " engine TEXT NOT NULL,"
    " path TEXT, url TEXT,"
    " served_model_name TEXT NOT NULL,"
    " program TEXT,"
    " run TEXT, args TEXT," /* JSON arrays of strings */
    " threads INTEGER NOT NULL,"
    " parallel INTEGER NOT NULL,"
    " ctx_size INTEGER NOT NULL,"
    " replicas INTEGER NOT NULL,"
    " sha256 TEXT,"
    " added_ms INTEGER NOT NULL,"
    " UNIQUE (model, name)) STRICT;"

    "CREATE TABLE route ("
    " model TEXT PRIMARY KEY,"
    " serving TEXT NOT NULL,"
    " previous TEXT,"
    " epoch INTEGER NOT NULL,"
    " changed_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;"

    "CREATE TABLE engine ("
    " replica TEXT PRIMARY KEY,"
    " pid INTEGER NOT NULL,"
    " start_time INTEGER NOT NULL,"
    " address TEXT NOT NULL,"
    " slot INTEGER NOT NULL,"
    " command TEXT NOT NULL,"
    " log_file TEXT NOT NULL) STRICT, WITHOUT ROWID;"

    "CREATE TABLE rollout ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT," /* a number is never given twice */
    " model TEXT NOT NULL,"
    " from_version TEXT,"
    " to_version TEXT NOT NULL,"
    " kind TEXT NOT NULL,"
    " state TEXT NOT NULL," /* that of its newest step */
    " began_ms INTEGER NOT NULL) STRICT;"

    "CREATE TABLE rollout_step ("
    " id INTEGER PRIMARY KEY,"
    " rollout INTEGER NOT NULL REFERENCES rollout (id),"
    " state TEXT NOT NULL,"
    " at_ms INTEGER NOT NULL,"
    " facts TEXT) STRICT;" /* a JSON object */
    "CREATE INDEX rollout_step_rollout ON rollout_step (rollout);"

    "CREATE TABLE receipt ("
    " number INTEGER PRIMARY KEY,"
    " model TEXT NOT NULL,"
    " text TEXT NOT NULL," /* the JSON that was hashed */
    " previous_hash TEXT NOT NULL,"
    " hash TEXT NOT NULL,"
    " written_ms INTEGER NOT NULL) STRICT;"
    "CREATE INDEX receipt_model ON receipt (model, number);"

    "PRAGMA application_id = 1399154549;" /* SCHEMA_APPLICATION */
    "PRAGMA user_version = 1;",

    "CREATE TABLE api_key ("
    " name TEXT PRIMARY KEY,"
    " sha256 TEXT NOT NULL UNIQUE," /* of the key's text, which is nowhere */
    " models TEXT NOT NULL,"        /* a JSON array; empty: all */
    " concurrency INTEGER NOT NULL,"
    " rate INTEGER NOT NULL,"
    " added_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "PRAGMA user_version = 2;",
};
