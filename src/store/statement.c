/*
 * statement - running one prepared statement, and turning what SQLite says
 * into a value or a sentence.
 */
#include "base/err.h"
#include "store/internal.h"

static const char *const texts[NSTATEMENTS] = {
#define X(id, sql) [STATEMENT_##id] = sql,
    STATEMENTS(X)
#undef X
};

int statements_prepare(struct store *s)
{
    for (int i = 0; i < NSTATEMENTS; i++) {
        int rc = sqlite3_prepare_v3(s->db, texts[i], -1, SQLITE_PREPARE_PERSISTENT,
                                    &s->statements[i], NULL);
        if (rc != SQLITE_OK)
            return rc;
    }
    return SQLITE_OK;
}

void statements_finalize(struct store *s)
{
    for (int i = 0; i < NSTATEMENTS; i++) {
        sqlite3_finalize(s->statements[i]);
        s->statements[i] = NULL;
    }
}

static const char *hint(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return "; free space on that disk, or set `state` to a folder on another one";
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return "; the folder named by `state` must be writable";
    case SQLITE_BUSY:
        return "; another program holds the database";
    default:
        return "";
    }
}

static int failed(struct store *s, const char *doing, struct err *err)
{
    int rc = sqlite3_extended_errcode(s->db);

    return err_set(err, 500, "cannot %s in %s: %s (SQLite code %d)%s", doing, s->file,
                   sqlite3_errmsg(s->db), rc, hint(rc));
}

static sqlite3_stmt *bound(struct store *s, enum statement id, const struct value *values, size_t n)
{
    sqlite3_stmt *st = s->statements[id];

    ALWAYS(st && !sqlite3_stmt_busy(st));
    ALWAYS(sqlite3_bind_parameter_count(st) == (int)n);
    for (size_t i = 0; i < n; i++) {
        int at = (int)i + 1, rc;

        if (values[i].kind == VALUE_NUMBER)
            rc = sqlite3_bind_int64(st, at, values[i].number);
        else if (!values[i].text)
            rc = sqlite3_bind_null(st, at);
        else
            rc = sqlite3_bind_text(st, at, values[i].text, -1, SQLITE_STATIC);
        ALWAYS(rc == SQLITE_OK);
    }
    return st;
}

int statement_run(struct store *s, enum statement id, const struct value *values, size_t n,
                  const char *doing, struct err *err)
{
    sqlite3_stmt *st = bound(s, id, values, n);
    int rc = sqlite3_step(st);
    int result = rc == SQLITE_DONE ? 0 : failed(s, doing, err);

    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
    return result;
}

static json_t *row_of(sqlite3_stmt *st)
{
    json_t *row = json_object();

    for (int i = 0; i < sqlite3_column_count(st); i++) {
        const char *name = sqlite3_column_name(st, i);

        switch (sqlite3_column_type(st, i)) {
        case SQLITE_INTEGER:
            json_object_set_new(row, name, json_integer(sqlite3_column_int64(st, i)));
            break;
        case SQLITE_TEXT:
            json_object_set_new(row, name,
                                json_string_nocheck((const char *)sqlite3_column_text(st, i)));
            break;
        default:
            json_object_set_new(row, name, json_null());
        }
    }
    return row;
}

json_t *statement_rows(struct store *s, enum statement id, const struct value *values, size_t n,
                       const char *doing, struct err *err)
{
    sqlite3_stmt *st = bound(s, id, values, n);
    json_t *rows = json_array();
    int rc;

    while ((rc = sqlite3_step(st)) == SQLITE_ROW)
        json_array_append_new(rows, row_of(st));
    if (rc != SQLITE_DONE) {
        failed(s, doing, err);
        json_decref(rows);
        rows = NULL;
    }
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
    return rows;
}

int transaction_begin(struct store *s, const char *doing, struct err *err)
{
    if (s->grouped)
        return 0;
    return statement_run(s, STATEMENT_BEGIN, NULL, 0, doing, err);
}

int transaction_end(struct store *s, int result, const char *doing, struct err *err)
{
    if (s->grouped)
        return result;
    if (result == 0)
        result = statement_run(s, STATEMENT_COMMIT, NULL, 0, doing, err);
    /* A full disk makes SQLite roll back by itself; then there is nothing left to undo. */
    if (result != 0 && !sqlite3_get_autocommit(s->db)) {
        struct err second;

        if (statement_run(s, STATEMENT_ROLLBACK, NULL, 0, doing, &second) != 0)
            return err_prefix(err, "%s", second.text);
    }
    return result;
}

int store_group_begin(struct store *s, struct err *err)
{
    ALWAYS(!s->grouped);
    if (transaction_begin(s, "begin a group of changes", err) != 0)
        return -1;
    s->grouped = true;
    return 0;
}

int store_group_end(struct store *s, int result, struct err *err)
{
    ALWAYS(s->grouped);
    s->grouped = false;
    return transaction_end(s, result, "keep a group of changes", err);
}

const char *row_text(const json_t *row, const char *column)
{
    return json_string_value(json_object_get(row, column));
}

int64_t row_number(const json_t *row, const char *column)
{
    return json_integer_value(json_object_get(row, column));
}
