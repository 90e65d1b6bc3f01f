/*
 * history - versions, rollouts, receipts, logs: what there is and what was; and
 * stop.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/ask.h"
#include "cli/internal.h"
#include "cli/screen.h"

/* GET target?name=value&..., names and values in turn, NULL values left out. */
static int get(const struct args *args, json_t **out, const char *target, const char *const *query)
{
    struct buf text = {0};
    char separator = '?';

    buf_add_str(&text, target);
    for (; query && query[0]; query += 2) {
        if (!query[1])
            continue;
        buf_addf(&text, "%c%s=", separator, query[0]);
        ask_add_encoded(&text, query[1]);
        separator = '&';
    }
    int code = ask_admin(args, "GET", buf_cstr(&text), NULL, out);
    buf_fini(&text);
    return code;
}

int run_versions(const struct args *args)
{
    static const char *const heads[] = {"MODEL",  "VERSION", ">SHARE", "STATE",
                                        "ENGINE", "SHA256",  "SOURCE", NULL};
    const char *model = args->nwords ? args->words[0] : args->options[OPTION_MODEL];
    const char *query[] = {"model", model, NULL};
    json_t *answer, *row;
    size_t i;

    int code = get(args, &answer, "/admin/v1/versions", query);
    if (code != CLI_DONE)
        return code;
    if (args_has(args, OPTION_JSON)) {
        say_json(answer);
        json_decref(answer);
        return CLI_DONE;
    }
    struct table *t = table_new(heads);
    json_array_foreach(json_object_get(answer, "versions"), i, row)
    {
        const char *state = json_text(row, "state", "");
        table_cell(t, INK_BOLD, "%s", json_text(row, "model", ""));
        table_cell(t, INK_PLAIN, "%s", json_text(row, "name", ""));
        table_cell(t, INK_PLAIN, "%g%%", json_number_value(json_object_get(row, "share")) * 100);
        table_cell(t, state_ink(state), "%s", state);
        table_cell(t, INK_PLAIN, "%s", json_text(row, "engine", ""));
        table_cell(t, INK_DIM, "%.12s", json_text(row, "sha256", "-"));
        table_cell(t, INK_PLAIN, "%s", json_text(row, "path", json_text(row, "url", "-")));
    }
    table_print(t, stdout);
    json_decref(answer);
    return CLI_DONE;
}

int run_rollouts(const struct args *args)
{
    static const char *const heads[] = {">NUMBER", "MODEL", "KIND",   "FROM", "TO",
                                        "STATE",   "BEGAN", "REASON", NULL};
    const char *query[] = {"model", args->options[OPTION_MODEL], NULL};
    json_t *answer, *row, *step;
    size_t i, j;

    int code = get(args, &answer, "/admin/v1/rollouts", query);
    if (code != CLI_DONE)
        return code;
    if (args_has(args, OPTION_JSON)) {
        say_json(answer);
        json_decref(answer);
        return CLI_DONE;
    }
    struct table *t = table_new(heads);
    json_array_foreach(json_object_get(answer, "rollouts"), i, row)
    {
        const char *state = json_text(row, "state", ""), *reason = "";
        json_array_foreach(json_object_get(row, "steps"), j, step) reason =
            json_text(json_object_get(step, "facts"), "reason", reason);
        table_cell(t, INK_PLAIN, "%lld", (long long)json_int(row, "id"));
        table_cell(t, INK_BOLD, "%s", json_text(row, "model", ""));
        table_cell(t, INK_PLAIN, "%s", json_text(row, "kind", ""));
        table_cell(t, INK_PLAIN, "%s", json_text(row, "from", "-"));
        table_cell(t, INK_PLAIN, "%s", json_text(row, "to", "-"));
        table_cell(t, state_ink(state), "%s", state);
        table_cell(t, INK_DIM, "%s", json_text(row, "began", ""));
        table_cell(t, INK_PLAIN, "%s", reason);
    }
    table_print(t, stdout);
    json_decref(answer);
    return CLI_DONE;
}

/* --- receipt ---------------------------------------------------------- */

static double phases_seconds(const json_t *receipt)
{
    const char *name;
    json_t *ms;
    double sum = 0;

    json_object_foreach(json_object_get(receipt, "phases_ms"), name, ms) sum +=
        json_number_value(ms) / 1000;
    return sum;
}

static void say_phases(const json_t *receipt)
{
    char took[NUMBER_TEXT_MAX];
    const char *name, *separator = "";
    json_t *ms;

    printf("  phases         ");
    json_object_foreach(json_object_get(receipt, "phases_ms"), name, ms)
    {
        bool none = json_integer_value(ms) == 0; /* whole milliseconds */
        printf("%s%s %s", separator, name,
               none ? "<1 ms" : time_text(json_number_value(ms) / 1000, took));
        separator = ", ";
    }
    printf("\n");
}

void say_receipt(const json_t *r)
{
    char a[NUMBER_TEXT_MAX], b[NUMBER_TEXT_MAX], c[NUMBER_TEXT_MAX], d[NUMBER_TEXT_MAX];
    const char *from = json_text(r, "from", "?"), *reason = json_text(r, "reason", "");
    const char *result = json_text(r, "result", "?");
    bool colour = screen_has_colour(stdout);
    double seconds = phases_seconds(r);
    struct buf head = {0};

    ink_add(&head, INK_BOLD, colour, json_text(r, "model", "?"));
    buf_addf(&head, ": %s %s -> %s ", json_text(r, "kind", "update"), from,
             json_text(r, "to", "?"));
    ink_add(&head, state_ink(result), colour, result);
    printf("%s%s%s\n", buf_cstr(&head), seconds > 0 ? " in " : "",
           seconds > 0 ? time_text(seconds, a) : "");
    buf_fini(&head);
    if (*reason)
        printf("  reason         %s\n", reason);
    say_phases(r);
    if (json_int(r, "epoch"))
        printf("  switch         %s until the last of %lld workers had it (epoch %lld)\n",
               time_text((double)json_int(r, "switch_us") / 1e6, a),
               (long long)json_int(r, "workers"), (long long)json_int(r, "epoch"));
    printf("  requests       %s: %s finished, %s failed, %s truncated",
           number_text(json_int(r, "requests"), a), number_text(json_int(r, "finished"), b),
           number_text(json_int(r, "failed"), c), number_text(json_int(r, "truncated"), d));
    printf(", %s cancelled by clients, %s held, %s retried\n",
           number_text(json_int(r, "cancelled"), a), number_text(json_int(r, "held"), b),
           number_text(json_int(r, "retried"), c));
    if (json_int(r, "epoch"))
        printf("  at the switch  %s in flight on %s, %s of them finished there; %s started on it "
               "afterwards\n",
               number_text(json_int(r, "in_flight_at_switch"), a), from,
               number_text(json_int(r, "drained"), b),
               number_text(json_int(r, "started_on_old_after_switch"), c));
    if (json_int(r, "number"))
        printf("  receipt        number %lld, %s\n", (long long)json_int(r, "number"),
               json_text(r, "began", ""));
}

int run_receipt(const struct args *args)
{
    const char *query[] = {"model", args->options[OPTION_MODEL], "number",
                           args->nwords ? args->words[0] : NULL, NULL};
    uint64_t number;
    json_t *answer;

    if (args->nwords && !span_u64(span_str(args->words[0]), &number))
        return say_error(CLI_USAGE, "'%s' is not the number of a receipt", args->words[0]);
    int code = get(args, &answer, "/admin/v1/receipt", query);
    if (code != CLI_DONE)
        return code;
    if (args_has(args, OPTION_JSON))
        say_json(answer);
    else
        say_receipt(answer);
    json_decref(answer);
    return CLI_DONE;
}

/* --- logs, stop ------------------------------------------------------- */

int run_logs(const struct args *args)
{
    const char *lines = args->options[OPTION_LINES];
    uint64_t n;
    json_t *answer;

    if (lines && !span_u64(span_str(lines), &n))
        return say_error(CLI_USAGE, "-n: '%s' is not a number of lines", lines);
    /* Most versions have one replica: its number may be left out. */
    bool numbered = strchr(args->words[0], '#') != NULL;
    char *replica = str_fmt("%s%s", args->words[0], numbered ? "" : "#0");
    const char *query[] = {"replica", replica, "lines", lines ? lines : "50", NULL};
    int code = get(args, &answer, "/admin/v1/logs", query);
    free(replica);
    if (code != CLI_DONE)
        return code;
    const char *text = json_text(answer, "text", "");
    if (args_has(args, OPTION_JSON))
        say_json(answer);
    else
        printf("%s%s", text, *text && text[strlen(text) - 1] != '\n' ? "\n" : "");
    json_decref(answer);
    return CLI_DONE;
}

int run_stop(const struct args *args)
{
    bool engines = args_has(args, OPTION_ENGINES);
    json_t *answer;

    int code =
        ask_admin(args, "POST", "/admin/v1/stop", json_pack("{s:b}", "engines", engines), &answer);
    if (code != CLI_DONE)
        return code;
    if (args_has(args, OPTION_JSON))
        say_json(answer);
    else
        printf("segue stops when the answers under way have ended; the engines %s\n",
               engines ? "stop too" : "go on and are adopted by the next start");
    json_decref(answer);
    return CLI_DONE;
}
