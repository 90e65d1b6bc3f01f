/*
 * apikey - the API keys: what each may do, and the hash that it is known by.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "store/internal.h"

int store_key_add(struct store *s, const struct store_key *k, struct err *err)
{
    char *models = json_dumps(k->models, JSON_COMPACT);

    ALWAYS(models);
    int result =
        statement_run(s, STATEMENT_KEY_ADD,
                      VALUES(TEXT(k->name), TEXT(k->sha256), TEXT(models), NUMBER(k->concurrency),
                             NUMBER(k->rate), NUMBER(clock_wall_ms())),
                      "keep the API key", err);
    free(models);
    return result;
}

int store_key_delete(struct store *s, const char *name, struct err *err)
{
    return statement_run(s, STATEMENT_KEY_DELETE, VALUES(TEXT(name)), "forget the API key", err);
}

int store_keys(struct store *s, void (*cb)(const struct store_key *k, void *arg), void *arg,
               struct err *err)
{
    json_t *rows = statement_rows(s, STATEMENT_KEYS, NULL, 0, "read the API keys", err);
    json_t *row;
    size_t i;

    if (!rows)
        return -1;
    json_array_foreach(rows, i, row)
    {
        json_t *models = json_loads(row_text(row, "models"), 0, NULL);
        struct store_key k = {
            .name = row_text(row, "name"),
            .sha256 = row_text(row, "sha256"),
            .models = models,
            .concurrency = row_number(row, "concurrency"),
            .rate = row_number(row, "rate"),
            .added_ms = row_number(row, "added_ms"),
        };
        cb(&k, arg);
        json_decref(models);
    }
    json_decref(rows);
    return 0;
}
