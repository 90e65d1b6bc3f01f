/*
 * store - opening STATE/segue.db: is it ours, is it whole, is it of today?
 *
 *   open ─▶ ours and readable? ─▶ migrate ─▶ prepare statements ─▶ use
 *                 │ no
 *                 └─▶ rename aside (with its -wal) ─▶ begin a new one, say so
 *
 * What cannot be opened for another reason (no permission, no space, locked)
 * is an error: setting it aside would not help.
 */
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "store/internal.h"
#include "store/schema.h"

enum verdict { VERDICT_USE, VERDICT_SET_ASIDE, VERDICT_ERROR };

static void shut(struct store *s)
{
    statements_finalize(s);
    ALWAYS(sqlite3_close(s->db) == SQLITE_OK);
    s->db = NULL;
}

/* The first value of a pragma's first row, as text; an SQLite result code. */
static int pragma(struct store *s, const char *sql, char *out, size_t room)
{
    sqlite3_stmt *st;
    int rc = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL);

    out[0] = '\0';
    if (rc != SQLITE_OK)
        return rc;
    rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        const unsigned char *text = sqlite3_column_text(st, 0);
        snprintf(out, room, "%s", text ? (const char *)text : "");
        rc = SQLITE_OK;
    } else if (rc == SQLITE_DONE) {
        rc = SQLITE_OK;
    }
    sqlite3_finalize(st);
    return rc;
}

static enum verdict judge_code(struct store *s, int rc, struct err *err)
{
    switch (rc & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        err_set(err, 500, "%s", sqlite3_errmsg(s->db));
        return VERDICT_SET_ASIDE;
    default:
        err_set(err, 500, "cannot open %s: %s (SQLite code %d); `state` names its folder", s->file,
                sqlite3_errmsg(s->db), sqlite3_extended_errcode(s->db));
        return VERDICT_ERROR;
    }
}

/* Whose database is this, and can this program read it? Fills *version. */
static enum verdict examine(struct store *s, int *version, struct err *err)
{
    char text[256], tables[16];
    int rc;

    if ((rc = pragma(s, "PRAGMA application_id", text, sizeof(text))) != SQLITE_OK ||
        (rc = pragma(s, "SELECT count(*) FROM sqlite_master", tables, sizeof(tables))) != SQLITE_OK)
        return judge_code(s, rc, err);
    bool empty = strcmp(tables, "0") == 0;
    if (atoi(text) != SCHEMA_APPLICATION && !(empty && atoi(text) == 0)) {
        err_set(err, 500, "it is a database of another program (application_id %s)", text);
        return VERDICT_SET_ASIDE;
    }
    if ((rc = pragma(s, "PRAGMA user_version", text, sizeof(text))) != SQLITE_OK)
        return judge_code(s, rc, err);
    *version = atoi(text);
    if (*version < 0 || *version > (int)COUNT_OF(schema_migrations)) {
        err_set(err, 500, "it is from a newer segue (schema %d; this one knows up to %d)", *version,
                (int)COUNT_OF(schema_migrations));
        return VERDICT_SET_ASIDE;
    }
    if ((rc = pragma(s, "PRAGMA quick_check(1)", text, sizeof(text))) != SQLITE_OK)
        return judge_code(s, rc, err);
    if (strcmp(text, "ok") != 0) {
        err_set(err, 500, "it is damaged: %s", text);
        return VERDICT_SET_ASIDE;
    }
    return VERDICT_USE;
}

static enum verdict migrate(struct store *s, int version, struct err *err)
{
    for (int i = version; i < (int)COUNT_OF(schema_migrations); i++) {
        int rc = sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);

        if (rc == SQLITE_OK)
            rc = sqlite3_exec(s->db, schema_migrations[i], NULL, NULL, NULL);
        if (rc == SQLITE_OK)
            rc = sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
        if (rc != SQLITE_OK)
            return judge_code(s, rc, err);
    }
    return VERDICT_USE;
}

static enum verdict try_open(struct store *s, struct err *err)
{
    char text[64];
    int version = 0, rc;

    rc = sqlite3_open_v2(s->file, &s->db,
                         SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return judge_code(s, rc, err);
    /* Readers (a backup, the sqlite3 shell) never hold us up in WAL mode; this
     * is for the moment in which somebody copies the file with a lock on it. */
    sqlite3_busy_timeout(s->db, 1000);
    enum verdict v = examine(s, &version, err);
    if (v != VERDICT_USE)
        return v;
    /* Checkpoints wait for the disk: the manager makes them when nobody waits for it
     * (store_checkpoint); 64 MiB of log is where patience ends.
     * NORMAL: a commit survives the death of this process at any moment; a power
     * cut may take the newest commits, never the file.
     * Written often, read rarely: a cache of 256 KiB is full after some hundred updates,
     * and from then on the memory stays what it is. */
    if ((rc = pragma(s, "PRAGMA journal_mode = WAL", text, sizeof(text))) != SQLITE_OK ||
        (rc = pragma(s, "PRAGMA synchronous = NORMAL", text, sizeof(text))) != SQLITE_OK ||
        (rc = pragma(s, "PRAGMA wal_autocheckpoint = 16384", text, sizeof(text))) != SQLITE_OK ||
        (rc = pragma(s, "PRAGMA cache_size = -256", text, sizeof(text))) != SQLITE_OK ||
        (rc = pragma(s, "PRAGMA foreign_keys = ON", text, sizeof(text))) != SQLITE_OK)
        return judge_code(s, rc, err);
    if ((v = migrate(s, version, err)) != VERDICT_USE)
        return v;
    if ((rc = statements_prepare(s)) == SQLITE_ERROR) {
        err_set(err, 500, "its tables are not what schema %d says: %s",
                (int)COUNT_OF(schema_migrations), sqlite3_errmsg(s->db));
        return VERDICT_SET_ASIDE;
    }
    return rc == SQLITE_OK ? VERDICT_USE : judge_code(s, rc, err);
}

static int move_aside(const char *from, const char *suffix, const char *to, struct err *err)
{
    char *old = str_fmt("%s%s", from, suffix), *new = str_fmt("%s%s", to, suffix);
    int result = 0;

    if (rename(old, new) != 0 && errno != ENOENT)
        result = err_set(err, 500, "cannot rename %s to %s: %s", old, new, strerror(errno));
    free(old);
    free(new);
    return result;
}

/* -shm is an index of -wal and is made anew; leaving it would mislead. */
static int set_aside(const char *file, const char *why, char **notice, struct err *err)
{
    char when[CLOCK_TEXT_MAX];

    clock_text(clock_wall_ms(), when);
    char *aside = str_fmt("%s.bad-%s", file, when);
    int result = 0;
    if (move_aside(file, "", aside, err) != 0 || move_aside(file, "-wal", aside, err) != 0 ||
        move_aside(file, "-shm", aside, err) != 0)
        result = -1;
    else
        *notice = str_fmt("%s could not be used: %s; it was renamed to %s and a new one begun, so "
                          "what was deployed before is taken from the configuration",
                          file, why, aside);
    free(aside);
    return result;
}

/* SQLite takes an empty file for a new database; to us it is a lost one. */
static bool emptied(const char *file)
{
    struct stat st;
    char *wal = str_fmt("%s-wal", file);
    bool has_wal = stat(wal, &st) == 0 && st.st_size > 0;

    free(wal);
    return !has_wal && stat(file, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0;
}

struct store *store_open(const char *state_folder, char **notice, struct err *err)
{
    struct store *s = NEW(struct store);
    struct err why;
    enum verdict v;

    *notice = NULL;
    s->file = str_fmt("%s/segue.db", state_folder);
    if (emptied(s->file)) {
        err_set(&why, 500, "it is empty");
        v = VERDICT_SET_ASIDE;
    } else {
        v = try_open(s, &why);
    }
    if (v == VERDICT_SET_ASIDE) {
        shut(s);
        v = set_aside(s->file, why.text, notice, &why) == 0 ? try_open(s, &why) : VERDICT_ERROR;
    }
    if (v == VERDICT_USE)
        return s;
    err_set(err, 500, "%s", why.text);
    free(*notice);
    *notice = NULL;
    store_close(s);
    return NULL;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    shut(s);
    free(s->file);
    free(s);
}

void store_checkpoint(struct store *s)
{
    sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}
