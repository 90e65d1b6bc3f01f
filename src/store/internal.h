/*
 * store/internal - what the files of this folder share: one database
 * connection and its statements, each prepared once.
 *
 * Every statement is a row of STATEMENTS: SQL is never built from strings.
 * Rows come out as jansson values and are complete before anybody looks at
 * them, so that a callback may use the store again.
 */
#pragma once
#include <stdbool.h>

#include <sqlite3.h>

#include "store/store.h"

// clang-format off
#define STATEMENTS(X)                                                                          \
    X(BEGIN,    "BEGIN IMMEDIATE")                                                             \
    X(COMMIT,   "COMMIT")                                                                      \
    X(ROLLBACK, "ROLLBACK")                                                                    \
    X(VERSION_PUT,                                                                             \
      "INSERT INTO version (model, name, engine, path, url, served_model_name, program, run,"  \
      " args, threads, parallel, ctx_size, replicas, sha256, added_ms)"                        \
      " VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)"                           \
      " ON CONFLICT (model, name) DO UPDATE SET engine=?3, path=?4, url=?5,"                   \
      " served_model_name=?6, program=?7, run=?8, args=?9, threads=?10, parallel=?11,"         \
      " ctx_size=?12, replicas=?13, sha256=?14")                                               \
    X(VERSIONS, "SELECT * FROM version WHERE model=?1 ORDER BY id")                            \
    X(VERSION_DELETE, "DELETE FROM version WHERE model=?1 AND name=?2")                        \
    X(ROUTE_PUT,                                                                               \
      "INSERT INTO route (model, serving, previous, epoch, changed_ms) VALUES (?1,?2,?3,?4,?5)"\
      " ON CONFLICT (model) DO UPDATE SET serving=?2, previous=?3, epoch=max(epoch,?4),"       \
      " changed_ms=?5")                                                                        \
    X(ROUTE_GET, "SELECT serving, previous FROM route WHERE model=?1")                         \
    X(EPOCH,     "SELECT coalesce(max(epoch), 0) AS epoch FROM route")                         \
    X(ENGINE_PUT,                                                                              \
      "INSERT INTO engine (replica, pid, start_time, address, slot, command, log_file)"        \
      " VALUES (?1,?2,?3,?4,?5,?6,?7)"                                                         \
      " ON CONFLICT (replica) DO UPDATE SET pid=?2, start_time=?3, address=?4, slot=?5,"       \
      " command=?6, log_file=?7")                                                              \
    X(KEY_ADD,                                                                                 \
      "INSERT INTO api_key (name, sha256, models, concurrency, rate, added_ms)"                \
      " VALUES (?1,?2,?3,?4,?5,?6)")                                                           \
    X(KEY_DELETE, "DELETE FROM api_key WHERE name=?1")                                         \
    X(KEYS,       "SELECT * FROM api_key ORDER BY name")                                       \
    X(ENGINE_DELETE, "DELETE FROM engine WHERE replica=?1")                                    \
    X(ENGINES,       "SELECT * FROM engine ORDER BY replica")                                  \
    X(ROLLOUT_PUT,                                                                             \
      "INSERT INTO rollout (model, from_version, to_version, kind, state, began_ms)"           \
      " VALUES (?1,?2,?3,?4,'begun',?5)")                                                      \
    X(ROLLOUT_STATE, "UPDATE rollout SET state=?2 WHERE id=?1")                                \
    X(STEP_PUT,                                                                                \
      "INSERT INTO rollout_step (rollout, state, at_ms, facts) VALUES (?1,?2,?3,?4)")          \
    X(STEPS,         "SELECT * FROM rollout_step WHERE rollout=?1 ORDER BY id")                \
    X(ROLLOUTS_OPEN,                                                                           \
      "SELECT * FROM rollout WHERE state NOT IN ('done','rolled back','failed') ORDER BY id")  \
    X(ROLLOUTS,                                                                                \
      "SELECT * FROM rollout WHERE ?1 IS NULL OR model=?1 ORDER BY id DESC LIMIT ?2")          \
    X(RECEIPT_LAST,                                                                            \
      "SELECT number, hash FROM receipt ORDER BY number DESC LIMIT 1")                         \
    X(RECEIPT_PUT,                                                                             \
      "INSERT INTO receipt (number, model, text, previous_hash, hash, written_ms)"             \
      " VALUES (?1,?2,?3,?4,?5,?6)")                                                           \
    X(RECEIPT_GET,                                                                             \
      "SELECT * FROM receipt WHERE (?1 IS NULL OR model=?1) AND (?2=0 OR number=?2)"           \
      " ORDER BY number DESC LIMIT 1")                                                         \
    X(RECEIPTS, "SELECT number, text, previous_hash, hash FROM receipt ORDER BY number")
// clang-format on

enum statement {
#define X(id, sql) STATEMENT_##id,
    STATEMENTS(X)
#undef X
        NSTATEMENTS
};

struct store {
    char *file;                            /* owned; STATE/segue.db */
    sqlite3 *db;                           /* owned */
    sqlite3_stmt *statements[NSTATEMENTS]; /* owned */
    bool grouped; /* within store_group_begin .. _end: one transaction around all */
};

/* A parameter of a statement; text is borrowed until the statement has run. */
struct value {
    enum { VALUE_TEXT, VALUE_NUMBER } kind;
    const char *text; /* NULL is SQL's NULL */
    int64_t number;
};

#define TEXT(s) ((struct value){VALUE_TEXT, (s), 0})
#define NUMBER(n) ((struct value){VALUE_NUMBER, NULL, (int64_t)(n)})
#define VALUES(...) (const struct value[]){__VA_ARGS__}, COUNT_OF(((struct value[]){__VA_ARGS__}))

/* Prepares all statements; an SQLite result code. */
int statements_prepare(struct store *s);
void statements_finalize(struct store *s);

/* Runs a statement that gives no rows. `doing` completes "cannot ... in FILE". */
int statement_run(struct store *s, enum statement id, const struct value *values, size_t n,
                  const char *doing, struct err *err) MUST_CHECK;

/* Runs a statement; its rows as a new array of objects, by column name. */
json_t *statement_rows(struct store *s, enum statement id, const struct value *values, size_t n,
                       const char *doing, struct err *err);

/* Several statements as one: begin, then end with whether all went well (0 or
 * -1). transaction_end() rolls back after a failure and returns -1 then. */
int transaction_begin(struct store *s, const char *doing, struct err *err) MUST_CHECK;
int transaction_end(struct store *s, int result, const char *doing, struct err *err) MUST_CHECK;

/* Members of a row; NULL or 0 when SQL said NULL. */
const char *row_text(const json_t *row, const char *column);
int64_t row_number(const json_t *row, const char *column);
