/*
 * engine - the engine processes that a later manager may find running.
 */
#include "store/internal.h"

int store_engine_put(struct store *s, const struct store_engine *e, struct err *err)
{
    return statement_run(s, STATEMENT_ENGINE_PUT,
                         VALUES(TEXT(e->replica), NUMBER(e->pid), NUMBER(e->start_time),
                                TEXT(e->address), NUMBER(e->slot), TEXT(e->command),
                                TEXT(e->log_file)),
                         "keep the engine", err);
}

int store_engine_delete(struct store *s, const char *replica, struct err *err)
{
    return statement_run(s, STATEMENT_ENGINE_DELETE, VALUES(TEXT(replica)), "forget the engine",
                         err);
}

int store_engines(struct store *s, void (*cb)(const struct store_engine *e, void *arg), void *arg,
                  struct err *err)
{
    json_t *rows = statement_rows(s, STATEMENT_ENGINES, NULL, 0, "read the engines", err);
    json_t *row;
    size_t i;

    if (!rows)
        return -1;
    json_array_foreach(rows, i, row)
    {
        struct store_engine e = {
            .replica = row_text(row, "replica"),
            .pid = row_number(row, "pid"),
            .start_time = (uint64_t)row_number(row, "start_time"),
            .address = row_text(row, "address"),
            .slot = (int)row_number(row, "slot"),
            .command = row_text(row, "command"),
            .log_file = row_text(row, "log_file"),
        };
        cb(&e, arg);
    }
    json_decref(rows);
    return 0;
}
