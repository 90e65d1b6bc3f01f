/*
 * status - what runs, which version serves, and how it is doing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/ask.h"
#include "cli/internal.h"
#include "cli/screen.h"
#include "config/config.h"

/* What was counted a moment ago, for rates while watching. */
struct before {
    json_t *status; /* owned; NULL at first */
    uint64_t at_ns;
};

static const json_t *find(const json_t *array, const char *name)
{
    size_t i;
    json_t *item;

    json_array_foreach(array, i, item)
    {
        if (strcmp(json_text(item, "name", ""), name) == 0)
            return item;
    }
    return NULL;
}

static void say_manager(const json_t *s)
{
    const json_t *gateway = json_object_get(s, "gateway"), *listen;
    bool colour = screen_has_colour(stdout), up = json_int(gateway, "pid") > 0;
    struct buf line = {0};
    size_t i;
    json_t *address;

    ink_add(&line, INK_BOLD, colour, "segue");
    buf_addf(&line, " %s  manager %lld since %s\n", json_text(s, "version", "?"),
             (long long)json_int(s, "pid"), json_text(s, "since", "?"));
    ink_add(&line, up ? INK_GREEN : INK_RED, colour, up ? "gateway" : "gateway down");
    if (up)
        buf_addf(&line, " %lld, %lld workers, epoch %lld", (long long)json_int(gateway, "pid"),
                 (long long)json_int(gateway, "workers"), (long long)json_int(gateway, "epoch"));
    listen = json_object_get(gateway, "listen");
    json_array_foreach(listen, i, address)
    {
        const char *text = json_string_value(address);
        buf_addf(&line, "%s %s%s", i ? "" : ", at", address_is_tls(text) ? "" : "http://", text);
    }
    printf("%s\n\n", buf_cstr(&line));
    buf_fini(&line);
}

static int64_t ended(const json_t *counters)
{
    return json_int(counters, "finished") + json_int(counters, "failed") +
           json_int(counters, "truncated") + json_int(counters, "cancelled");
}

static int64_t in_flight(const json_t *counters)
{
    const json_t *n = json_object_get(counters, "in_flight");

    return n ? json_integer_value(n)
             : json_int(counters, "started") + json_int(counters, "pinned") - ended(counters) -
                   json_int(counters, "retried");
}

/* Answers a second since the last look, or "-" at the first. */
static void cell_rate(struct table *t, const struct before *before, const char *model,
                      const char *version, const json_t *counters)
{
    const json_t *m = find(json_object_get(before->status, "models"), model);
    const json_t *v = find(json_object_get(m, "versions"), version);
    double seconds = (double)(clock_ns() - before->at_ns) / 1e9;

    if (!v || seconds <= 0)
        table_cell(t, INK_DIM, "-");
    else
        table_cell(t, INK_PLAIN, "%.0f",
                   (double)(ended(counters) - ended(json_object_get(v, "counters"))) / seconds);
}

static void cell_count(struct table *t, int64_t n, enum ink ink)
{
    char text[NUMBER_TEXT_MAX];

    table_cell(t, n ? ink : INK_DIM, "%s", number_text(n, text));
}

enum ink state_ink(const char *state)
{
    static const struct {
        const char *state;
        enum ink ink;
    } inks[] = {{"ready", INK_GREEN},   {"serving", INK_GREEN},
                {"done", INK_GREEN},    {"failed", INK_RED},
                {"down", INK_RED},      {"rolled back", INK_RED},
                {"starting", INK_CYAN}, {"rolling back", INK_YELLOW},
                {"asking", INK_CYAN},   {"stopped", INK_DIM}};

    for (size_t i = 0; i < COUNT_OF(inks); i++)
        if (strcmp(inks[i].state, state) == 0)
            return inks[i].ink;
    return INK_PLAIN;
}

/* "1/2": ready ones of those that should be there. */
static void cell_replicas(struct table *t, const json_t *replicas)
{
    size_t i, ready = 0, n = json_array_size(replicas);
    json_t *r;

    json_array_foreach(replicas, i, r)
    {
        ready += strcmp(json_text(r, "state", ""), "ready") == 0;
    }
    if (n == 0)
        table_cell(t, INK_DIM, "-");
    else
        table_cell(t, ready == n ? INK_PLAIN : INK_YELLOW, "%zu/%zu", ready, n);
}

static void add_version(struct table *t, const struct before *before, const json_t *model,
                        const json_t *version)
{
    const json_t *counters = json_object_get(version, "counters");
    const char *state = json_text(version, "state", "?"), *name = json_text(version, "name", "?");

    table_cell(t, INK_BOLD, "%s", json_text(model, "name", "?"));
    table_cell(t, INK_PLAIN, "%s", name);
    table_cell(t, state_ink(state), "%s", state);
    table_cell(t, INK_PLAIN, "%g%%", json_number_value(json_object_get(version, "share")) * 100);
    cell_replicas(t, json_object_get(version, "replicas"));
    cell_count(t, in_flight(counters), INK_PLAIN);
    cell_rate(t, before, json_text(model, "name", ""), name, counters);
    cell_count(t, json_int(counters, "finished"), INK_PLAIN);
    cell_count(t, json_int(counters, "failed"), INK_RED);
    cell_count(t, json_int(counters, "truncated"), INK_RED);
    table_cell(t, INK_PLAIN, "%s", json_text(version, "engine", "?"));
    table_cell(t, INK_DIM, "%s", json_text(version, "source", "-"));
}

/* Why it is given up or down; of one that is starting, what the last look at it said. */
static void say_trouble(const char *who, const json_t *of)
{
    const char *reason = json_text(of, "reason", "");
    bool waits = !*reason && strcmp(json_text(of, "state", ""), "starting") == 0;
    struct buf line = {0};

    if (waits)
        reason = json_text(of, "detail", "");
    if (!*reason)
        return;
    ink_add(&line, waits ? INK_YELLOW : INK_RED, screen_has_colour(stdout), who);
    buf_add_str(&line, ": ");
    ink_add(&line, INK_PLAIN, false, reason);
    printf("%s\n", buf_cstr(&line));
    buf_fini(&line);
}

/* Why a version, or a replica of it, is not what it should be. */
static void say_troubles(const json_t *model, const json_t *version)
{
    const json_t *replicas = json_object_get(version, "replicas");
    size_t i, said = 0;
    json_t *r;

    json_array_foreach(replicas, i, r)
    {
        say_trouble(json_text(r, "name", "a replica"), r);
        said += *json_text(r, "reason", "") != 0;
    }
    if (said)
        return;
    char *name = str_fmt("%s@%s", json_text(model, "name", "?"), json_text(version, "name", "?"));
    say_trouble(name, version);
    free(name);
}

static void say_rollout(const json_t *model)
{
    const json_t *r = json_object_get(model, "rollout");
    bool colour = screen_has_colour(stdout);
    char took[NUMBER_TEXT_MAX];
    struct buf line = {0};

    if (!json_is_object(r))
        return;
    buf_addf(&line, "%s: %s", json_text(model, "name", "?"), json_text(r, "kind", "update"));
    if (json_object_get(r, "from"))
        buf_addf(&line, " %s -> %s", json_text(r, "from", "?"), json_text(r, "to", "?"));
    buf_add_str(&line, " is ");
    ink_add(&line, INK_YELLOW, colour, json_text(r, "state", "?"));
    buf_addf(&line, " for %s", time_text((double)json_int(r, "state_ms") / 1e3, took));
    if (*json_text(r, "reason", "")) {
        buf_add_str(&line, ": ");
        ink_add(&line, INK_PLAIN, false, json_text(r, "reason", ""));
    }
    printf("%s\n", buf_cstr(&line));
    buf_fini(&line);
}

static void say_status(const json_t *status, const struct before *before)
{
    static const char *const heads[] = {
        "MODEL",     "VERSION", "STATE", ">SHARE", ">REPLICAS", ">IN FLIGHT", ">PER S",
        ">FINISHED", ">FAILED", ">CUT",  "ENGINE", "SOURCE",    NULL};
    struct table *t = table_new(heads);
    size_t i, j;
    json_t *model, *version;

    say_manager(status);
    json_array_foreach(json_object_get(status, "models"), i, model)
    {
        json_array_foreach(json_object_get(model, "versions"), j, version)
            add_version(t, before, model, version);
    }
    table_print(t, stdout);
    json_array_foreach(json_object_get(status, "models"), i, model)
    {
        say_rollout(model);
        json_array_foreach(json_object_get(model, "versions"), j, version)
            say_troubles(model, version);
    }
}

/* One look: asks, prints, and keeps what it saw. */
static int look(const struct args *args, struct before *before, bool clear)
{
    json_t *status;
    int code = ask_admin(args, "GET", "/admin/v1/status", NULL, &status);

    if (code != CLI_DONE)
        return code;
    if (clear)
        printf("\033[H\033[2J");
    if (args_has(args, OPTION_JSON))
        say_json(status);
    else
        say_status(status, before);
    fflush(stdout);
    json_decref(before->status);
    *before = (struct before){status, clock_ns()};
    return CLI_DONE;
}

int run_status(const struct args *args)
{
    struct before before = {0};
    bool watch = args_has(args, OPTION_WATCH);
    bool clear = watch && !args_has(args, OPTION_JSON) && screen_is_terminal(stdout);
    int code;

    do
        code = look(args, &before, clear);
    while (code == CLI_DONE && watch && !ferror(stdout) &&
           nanosleep(&(struct timespec){.tv_sec = 1}, NULL) == 0);
    json_decref(before.status);
    return code;
}
