/*
 * key - API keys: add, list, revoke.
 */
#include <stdio.h>

#include "cli/ask.h"
#include "cli/internal.h"
#include "cli/screen.h"

/* "10/s" or "10"; 0 means that it is neither. */
static uint64_t rate_of(const char *text)
{
    struct span s = span_str(text);
    uint64_t rate = 0;

    if (s.n > 2 && s.p[s.n - 1] == 's' && s.p[s.n - 2] == '/')
        s.n -= 2;
    return span_u64(s, &rate) ? rate : 0;
}

/* Adds a number that an option gives, if it does. */
static int add_limit(json_t *body, const char *name, const char *text, uint64_t value)
{
    if (!text)
        return CLI_DONE;
    if (value == 0 || value > INT32_MAX)
        return say_error(CLI_USAGE, "--%s: '%s' is not %s", name, text,
                         *name == 'r' ? "a number of requests in a second, for example 10/s"
                                      : "a number from 1");
    json_object_set_new(body, name, json_integer((json_int_t)value));
    return CLI_DONE;
}

/* The key alone goes to standard output, so that it can be taken from there. */
static void say_key(const json_t *answer)
{
    json_t *models = json_object_get(answer, "models"), *model;
    size_t i;

    printf("%s\n", json_text(answer, "key", ""));
    fflush(stdout);
    fprintf(stderr, "This is the key '%s'", json_text(answer, "name", ""));
    json_array_foreach(models, i, model)
        fprintf(stderr, "%s%s", i ? ", " : " for ", json_string_value(model));
    fprintf(stderr, ". It is not stored and will not be shown again.\n");
    if (!json_is_true(json_object_get(answer, "required")))
        fprintf(stderr, "Requests without a key are answered too, until segue.yaml says "
                        "`keys: required`.\n");
}

int run_key_add(const struct args *args)
{
    const char *concurrency = args->options[OPTION_CONCURRENCY], *rate = args->options[OPTION_RATE];
    json_t *body = json_pack("{s:s}", "name", args->words[0]), *models = json_array(), *answer;
    uint64_t n = 0;
    int code;

    for (int i = 0; i < args->nmodels; i++)
        json_array_append_new(models, json_string(args->models[i]));
    if (json_array_size(models))
        json_object_set(body, "models", models);
    json_decref(models);
    if (concurrency && !span_u64(span_str(concurrency), &n))
        n = 0;
    code = add_limit(body, "concurrency", concurrency, n);
    if (code == CLI_DONE)
        code = add_limit(body, "rate", rate, rate ? rate_of(rate) : 0);
    if (code != CLI_DONE) {
        json_decref(body);
        return code;
    }
    code = ask_admin(args, "POST", "/admin/v1/keys/add", body, &answer);
    if (code != CLI_DONE)
        return code;
    if (args_has(args, OPTION_JSON))
        say_json(answer);
    else
        say_key(answer);
    json_decref(answer);
    return CLI_DONE;
}

static void limit_cell(struct table *t, const json_t *key, const char *name, const char *unit)
{
    int64_t n = json_int(key, name);

    if (n)
        table_cell(t, INK_PLAIN, "%lld%s", (long long)n, unit);
    else
        table_cell(t, INK_DIM, "any");
}

int run_key_list(const struct args *args)
{
    static const char *const heads[] = {"NAME", "MODELS", ">CONCURRENCY", ">RATE", "ADDED", NULL};
    json_t *answer, *key, *model;
    size_t i, j;

    int code = ask_admin(args, "GET", "/admin/v1/keys", NULL, &answer);
    if (code != CLI_DONE)
        return code;
    if (args_has(args, OPTION_JSON)) {
        say_json(answer);
        json_decref(answer);
        return CLI_DONE;
    }
    struct table *t = table_new(heads);
    json_array_foreach(json_object_get(answer, "keys"), i, key)
    {
        struct buf models = {0};
        json_array_foreach(json_object_get(key, "models"), j, model)
            buf_addf(&models, "%s%s", j ? ", " : "", json_string_value(model));
        table_cell(t, INK_BOLD, "%s", json_text(key, "name", ""));
        table_cell(t, buf_pending(&models) ? INK_PLAIN : INK_DIM, "%s",
                   buf_pending(&models) ? buf_cstr(&models) : "all");
        limit_cell(t, key, "concurrency", "");
        limit_cell(t, key, "rate", "/s");
        table_cell(t, INK_DIM, "%s", json_text(key, "added", ""));
        buf_fini(&models);
    }
    table_print(t, stdout);
    json_decref(answer);
    return CLI_DONE;
}

int run_key_revoke(const struct args *args)
{
    json_t *answer;

    int code = ask_admin(args, "POST", "/admin/v1/keys/revoke",
                         json_pack("{s:s}", "name", args->words[0]), &answer);
    if (code != CLI_DONE)
        return code;
    if (args_has(args, OPTION_JSON))
        say_json(answer);
    else
        printf("the key '%s' is refused from now on\n", json_text(answer, "name", ""));
    json_decref(answer);
    return CLI_DONE;
}
