/*
 * route - which version serves, and the highest epoch ever given.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "store/internal.h"

int store_route_put(struct store *s, const char *model, const char *serving, const char *previous,
                    uint64_t epoch, struct err *err)
{
    return statement_run(
        s, STATEMENT_ROUTE_PUT,
        VALUES(TEXT(model), TEXT(serving), TEXT(previous), NUMBER(epoch), NUMBER(clock_wall_ms())),
        "keep the route", err);
}

int store_route_get(struct store *s, const char *model, char **serving, char **previous,
                    struct err *err)
{
    json_t *rows =
        statement_rows(s, STATEMENT_ROUTE_GET, VALUES(TEXT(model)), "read the route", err);
    const json_t *row = json_array_get(rows, 0);
    int result = !rows ? -1 : row ? 1 : 0;

    *serving = str_dup(row_text(row, "serving"));
    *previous = str_dup(row_text(row, "previous"));
    json_decref(rows);
    return result;
}

int store_epoch(struct store *s, uint64_t *epoch, struct err *err)
{
    json_t *rows = statement_rows(s, STATEMENT_EPOCH, NULL, 0, "read the epoch", err);

    if (!rows)
        return -1;
    *epoch = (uint64_t)row_number(json_array_get(rows, 0), "epoch");
    json_decref(rows);
    return 0;
}
