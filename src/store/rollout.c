/*
 * rollout - the updates and their steps.
 *
 * A rollout's row repeats the state of its newest step, written in the same
 * transaction, so that the open ones are found without reading all steps.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "store/internal.h"

int store_rollout_begin(struct store *s, const char *model, const char *from, const char *to,
                        const char *kind, int64_t *id, struct err *err)
{
    if (statement_run(
            s, STATEMENT_ROLLOUT_PUT,
            VALUES(TEXT(model), TEXT(from), TEXT(to), TEXT(kind), NUMBER(clock_wall_ms())),
            "begin the rollout", err) != 0)
        return -1;
    *id = sqlite3_last_insert_rowid(s->db);
    return 0;
}

int store_rollout_step(struct store *s, int64_t id, const char *state, json_t *facts,
                       struct err *err)
{
    const char *doing = "keep the rollout's step";
    char *text = facts ? json_dumps(facts, JSON_COMPACT) : NULL;
    int result = transaction_begin(s, doing, err);

    if (result == 0) {
        result = statement_run(s, STATEMENT_STEP_PUT,
                               VALUES(NUMBER(id), TEXT(state), NUMBER(clock_wall_ms()), TEXT(text)),
                               doing, err);
        if (result == 0)
            result = statement_run(s, STATEMENT_ROLLOUT_STATE, VALUES(NUMBER(id), TEXT(state)),
                                   doing, err);
        result = transaction_end(s, result, doing, err);
    }
    free(text);
    return result;
}

int store_rollouts_open(struct store *s,
                        void (*cb)(int64_t id, const char *model, const char *from, const char *to,
                                   const char *kind, const char *state, void *arg),
                        void *arg, struct err *err)
{
    json_t *rows =
        statement_rows(s, STATEMENT_ROLLOUTS_OPEN, NULL, 0, "read the open rollouts", err);
    json_t *row;
    size_t i;

    if (!rows)
        return -1;
    json_array_foreach(rows, i, row)
        cb(row_number(row, "id"), row_text(row, "model"), row_text(row, "from_version"),
           row_text(row, "to_version"), row_text(row, "kind"), row_text(row, "state"), arg);
    json_decref(rows);
    return 0;
}

static json_t *time_of(const json_t *row, const char *column)
{
    char text[CLOCK_TEXT_MAX];

    clock_text(row_number(row, column), text);
    return json_string(text);
}

static json_t *steps_of(struct store *s, int64_t rollout, struct err *err)
{
    json_t *rows = statement_rows(s, STATEMENT_STEPS, VALUES(NUMBER(rollout)),
                                  "read the rollout's steps", err);
    json_t *row;
    size_t i;

    if (!rows)
        return NULL;
    json_t *steps = json_array();
    json_array_foreach(rows, i, row)
    {
        const char *text = row_text(row, "facts");
        json_t *facts = text ? json_loads(text, 0, NULL) : NULL;
        json_array_append_new(steps, json_pack("{s:s, s:o, s:o}", "state", row_text(row, "state"),
                                               "at", time_of(row, "at_ms"), "facts",
                                               facts ? facts : json_null()));
    }
    json_decref(rows);
    return steps;
}

json_t *store_rollouts_json(struct store *s, const char *model, int limit, struct err *err)
{
    json_t *rows = statement_rows(s, STATEMENT_ROLLOUTS, VALUES(TEXT(model), NUMBER(limit)),
                                  "read the rollouts", err);
    json_t *row;
    size_t i;

    if (!rows)
        return NULL;
    json_t *out = json_array();
    json_array_foreach(rows, i, row)
    {
        json_t *steps = steps_of(s, row_number(row, "id"), err);

        if (!steps) {
            json_decref(rows);
            json_decref(out);
            return NULL;
        }
        json_array_append_new(
            out, json_pack("{s:I, s:s, s:s?, s:s, s:s, s:s, s:o, s:o}", "id",
                           (json_int_t)row_number(row, "id"), "model", row_text(row, "model"),
                           "from", row_text(row, "from_version"), "to", row_text(row, "to_version"),
                           "kind", row_text(row, "kind"), "state", row_text(row, "state"), "began",
                           time_of(row, "began_ms"), "steps", steps));
    }
    json_decref(rows);
    return out;
}
