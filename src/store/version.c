/*
 * version - the versions that `deploy` added, as rows.
 *
 * An argv (run, args) is a JSON array of strings in one column.
 */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "store/internal.h"

static char *words_pack(char *const *words)
{
    if (!words)
        return NULL;
    json_t *array = json_array();
    for (size_t i = 0; words[i]; i++)
        json_array_append_new(array, json_string_nocheck(words[i]));
    char *text = json_dumps(array, JSON_COMPACT);
    ALWAYS(text);
    json_decref(array);
    return text;
}

/* The words stay owned by *array, which the caller releases after free(). */
static char **words_unpack(const char *text, json_t **array)
{
    *array = text ? json_loads(text, 0, NULL) : NULL;
    if (!json_is_array(*array))
        return NULL;
    size_t n = json_array_size(*array);
    char **words = mem_alloc((n + 1) * sizeof(*words));
    for (size_t i = 0; i < n; i++) {
        const char *word = json_string_value(json_array_get(*array, i));
        words[i] = (char *)(word ? word : "");
    }
    words[n] = NULL;
    return words;
}

int store_version_put(struct store *s, const char *model, const struct config_version *v,
                      const char *sha256, struct err *err)
{
    char *run = words_pack(v->run), *args = words_pack(v->args);
    int result = statement_run(
        s, STATEMENT_VERSION_PUT,
        VALUES(TEXT(model), TEXT(v->name), TEXT(config_engine_name(v->engine)), TEXT(v->path),
               TEXT(v->url), TEXT(v->served_model_name), TEXT(v->program), TEXT(run), TEXT(args),
               NUMBER(v->threads), NUMBER(v->parallel), NUMBER(v->ctx_size), NUMBER(v->replicas),
               TEXT(sha256), NUMBER(clock_wall_ms())),
        "keep the version", err);

    free(run);
    free(args);
    return result;
}

static int version_give(const json_t *row,
                        void (*cb)(const struct config_version *v, const char *sha256, void *arg),
                        void *arg, struct err *err)
{
    json_t *run, *args;
    int engine = config_engine_by_name(row_text(row, "engine"));

    if (engine < 0)
        return err_set(err, 500, "the store has version '%s' with an engine '%s' that is not known",
                       row_text(row, "name"), row_text(row, "engine"));
    struct config_version v = {
        .name = (char *)row_text(row, "name"),
        .engine = (enum config_engine)engine,
        .path = (char *)row_text(row, "path"),
        .url = (char *)row_text(row, "url"),
        .served_model_name = (char *)row_text(row, "served_model_name"),
        .program = (char *)row_text(row, "program"),
        .run = words_unpack(row_text(row, "run"), &run),
        .args = words_unpack(row_text(row, "args"), &args),
        .threads = (unsigned)row_number(row, "threads"),
        .parallel = (unsigned)row_number(row, "parallel"),
        .ctx_size = (unsigned)row_number(row, "ctx_size"),
        .replicas = (unsigned)row_number(row, "replicas"),
    };
    cb(&v, row_text(row, "sha256"), arg);
    free(v.run);
    free(v.args);
    json_decref(run);
    json_decref(args);
    return 0;
}

int store_versions(struct store *s, const char *model,
                   void (*cb)(const struct config_version *v, const char *sha256, void *arg),
                   void *arg, struct err *err)
{
    json_t *rows =
        statement_rows(s, STATEMENT_VERSIONS, VALUES(TEXT(model)), "read the versions", err);
    json_t *row;
    size_t i;
    int result = rows ? 0 : -1;

    json_array_foreach(rows, i, row) if (version_give(row, cb, arg, err) != 0) result = -1;
    json_decref(rows);
    return result;
}

int store_version_delete(struct store *s, const char *model, const char *version, struct err *err)
{
    return statement_run(s, STATEMENT_VERSION_DELETE, VALUES(TEXT(model), TEXT(version)),
                         "delete the version", err);
}
