/*
 * top - what happens now: rates and latencies of the last interval, by version,
 * and the engines behind them.
 *
 *   two readings of /admin/v1/counters ──▶ rates ──┐
 *   /admin/v1/status ──────────────────────────────┴─▶ lines ──▶ terminal, or once
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "cli/ask.h"
#include "cli/internal.h"
#include "cli/rates.h"
#include "cli/terminal.h"

enum { DELAY_MS = 1000, DELAY_LEAST_MS = 100, DELAY_MOST_MS = 3600 * 1000 };

/* Columns of the versions' table without the first one, and of the engines' table. */
enum { NAME_LEAST = 20, FIGURES_WIDTH = 59, ENGINE_WIDTH = 52, TIME_TEXT_MAX = 16 };

struct reading {
    json_t *status, *counters; /* owned */
};

struct view {
    struct reading before, now;
    struct span_of_time time; /* between the counters of both */
    size_t columns;
    bool colour;
    struct buf *out; /* borrowed */
};

/* --- asking ----------------------------------------------------------- */

static void reading_fini(struct reading *r)
{
    json_decref(r->status);
    json_decref(r->counters);
    *r = (struct reading){0};
}

static int take(const struct args *args, struct reading *out)
{
    int code = ask_admin(args, "GET", "/admin/v1/counters", NULL, &out->counters);

    if (code == CLI_DONE)
        code = ask_admin(args, "GET", "/admin/v1/status", NULL, &out->status);
    if (code != CLI_DONE)
        reading_fini(out);
    return code;
}

/* The same without a word when it cannot be: the manager may be back at the next look. */
static bool take_quietly(const struct args *args, struct reading *out)
{
    static const char *const targets[] = {"/admin/v1/counters", "/admin/v1/status"};
    json_t **const to[] = {&out->counters, &out->status};
    char *address = ask_admin_address(args);

    for (size_t i = 0; i < COUNT_OF(targets); i++) {
        struct answer a;
        ask(&a, address, "GET", targets[i], NULL);
        *to[i] = a.status == 200 ? json_incref(a.json) : NULL;
        answer_fini(&a);
    }
    free(address);
    bool all = out->counters && out->status;
    if (!all)
        reading_fini(out);
    return all;
}

/* --- text ------------------------------------------------------------- */

/* "812us", "1.23ms", "45.6ms", "1.23s", "92s"; "-" when there is nothing. */
static const char *short_time(double us, char out[TIME_TEXT_MAX])
{
    static const char *const units[] = {"us", "ms", "s"};
    size_t u = 0;

    if (us < 0)
        return "-";
    for (; us >= 1000 && u + 1 < COUNT_OF(units); u++)
        us /= 1000;
    snprintf(out, TIME_TEXT_MAX, "%.*f%s",
             u == 0 || us >= 99.95 ? 0
             : us >= 9.995         ? 1
                                   : 2,
             us, units[u]);
    return out;
}

/* "12.3", "1,234" */
static const char *short_rate(double n, char out[NUMBER_TEXT_MAX])
{
    if (n >= 99.95)
        return number_text((int64_t)(n + 0.5), out);
    snprintf(out, NUMBER_TEXT_MAX, "%.*f", n > 0 ? 1 : 0, n);
    return out;
}

/* A cell of exactly `width` columns, and the gap behind it. */
static void cell(struct view *v, size_t width, bool right, enum ink ink, const char *text)
{
    size_t fit = text_fit(text, width);
    char *shown = span_dup(span_of(text, fit));

    if (text[fit] && width > 1) { /* it is cut */
        free(shown);
        shown = str_fmt("%.*s~", (int)text_fit(text, width - 1), text);
    }
    size_t room = width - text_width(shown);
    for (size_t i = 0; right && i < room; i++)
        buf_add_char(v->out, ' ');
    ink_add(v->out, ink, v->colour, shown);
    for (size_t i = 0; !right && i < room; i++)
        buf_add_char(v->out, ' ');
    free(shown);
}

static void gap(struct view *v)
{
    buf_add_char(v->out, ' ');
}

static void end_line(struct view *v)
{
    while (v->out->len > v->out->pos && v->out->data[v->out->len - 1] == ' ')
        v->out->len--;
    buf_add_char(v->out, '\n');
}

/* --- the head --------------------------------------------------------- */

static void add_cpu(struct buf *out, double share)
{
    if (share >= 0)
        buf_addf(out, ", %.0f%% cpu", share * 100);
}

static void head_lines(struct view *v)
{
    const json_t *s = v->now.status, *g = json_object_get(s, "gateway");
    const json_t *totals = json_object_get(v->now.counters, "gateway");
    double seconds = rates_seconds(&v->time);
    char text[NUMBER_TEXT_MAX];
    struct buf line = {0};

    buf_addf(&line, "segue %s", json_text(s, "version", "?"));
    buf_addf(&line, "  manager %lld, %s", (long long)json_int(s, "pid"),
             bytes_text(json_int(s, "rss_bytes"), text));
    add_cpu(&line, rates_cpu(&v->time, "manager", ""));
    cell(v, v->columns - 1, false, INK_BOLD, buf_cstr(&line));
    end_line(v);

    buf_clear(&line);
    bool up = json_int(g, "pid") > 0;
    if (up) {
        buf_addf(&line, "gateway %lld, %lld workers, epoch %lld, %s", (long long)json_int(g, "pid"),
                 (long long)json_int(g, "workers"), (long long)json_int(g, "epoch"),
                 bytes_text(json_int(g, "rss_bytes"), text));
        add_cpu(&line, rates_cpu(&v->time, "gateway", ""));
    } else {
        buf_add_str(&line, "gateway is down");
    }
    cell(v, v->columns - 1, false, up ? INK_PLAIN : INK_RED, buf_cstr(&line));
    end_line(v);

    buf_clear(&line);
    double per = seconds > 0 ? seconds : 1;
    buf_addf(&line, "%s requests/s",
             short_rate((double)rates_gateway(&v->time, "requests") / per, text));
    buf_addf(&line, ", %s refused/s",
             short_rate((double)(rates_gateway(&v->time, "errors_4xx") +
                                 rates_gateway(&v->time, "errors_5xx")) /
                            per,
                        text));
    buf_addf(&line, ", %s connections",
             number_text(json_int(totals, "opened") - json_int(totals, "closed"), text));
    buf_addf(&line, ", %s held",
             number_text(json_int(totals, "held_total") - json_int(totals, "unheld"), text));
    cell(v, v->columns - 1, false, INK_PLAIN, buf_cstr(&line));
    end_line(v);
    buf_fini(&line);
}

/* --- versions --------------------------------------------------------- */

static size_t name_width(const struct view *v)
{
    return v->columns > NAME_LEAST + FIGURES_WIDTH + 1 ? v->columns - FIGURES_WIDTH - 1
                                                       : NAME_LEAST;
}

static void version_heads(struct view *v)
{
    static const struct {
        size_t width;
        const char *text;
    } heads[] = {{5, "SHARE"},   {7, "REQ/S"},   {6, "FLIGHT"},  {4, "ERR"},
                 {7, "FIRST50"}, {7, "FIRST99"}, {7, "TOKEN50"}, {7, "TOKEN99"}};

    cell(v, name_width(v), false, INK_DIM, "VERSION");
    for (size_t i = 0; i < COUNT_OF(heads); i++) {
        gap(v);
        cell(v, heads[i].width, true, INK_DIM, heads[i].text);
    }
    end_line(v);
}

static void times(struct view *v, const char *model, const char *version, const char *histogram)
{
    static const double quantiles[] = {0.5, 0.99};
    char text[TIME_TEXT_MAX];

    for (size_t i = 0; i < COUNT_OF(quantiles); i++) {
        double us = rates_quantile(&v->time, model, version, histogram, quantiles[i]);
        gap(v);
        cell(v, 7, true, us < 0 ? INK_DIM : INK_PLAIN, short_time(us, text));
    }
}

static void version_line(struct view *v, const json_t *model, const json_t *version)
{
    const char *m = json_text(model, "name", "?"), *name = json_text(version, "name", "?");
    const char *state = json_text(version, "state", "?");
    double seconds = rates_seconds(&v->time);
    int64_t ended = 0, failed = 0;
    char text[NUMBER_TEXT_MAX];

    failed =
        rates_version(&v->time, m, name, "failed") + rates_version(&v->time, m, name, "truncated");
    ended = failed + rates_version(&v->time, m, name, "finished") +
            rates_version(&v->time, m, name, "cancelled");
    int64_t flight = json_int(json_object_get(version, "counters"), "in_flight");
    char *tag = str_fmt("%s@%s", m, name);
    bool serving = strcmp(state, "serving") == 0;
    cell(v, name_width(v), false, serving ? INK_BOLD : state_ink(state), tag);
    free(tag);
    gap(v);
    snprintf(text, sizeof(text), "%.3g%%",
             json_number_value(json_object_get(version, "share")) * 100);
    cell(v, 5, true, INK_PLAIN, text);
    gap(v);
    cell(v, 7, true, ended ? INK_PLAIN : INK_DIM,
         short_rate(seconds > 0 ? (double)ended / seconds : 0, text));
    gap(v);
    cell(v, 6, true, flight ? INK_PLAIN : INK_DIM, number_text(flight, text));
    gap(v);
    cell(v, 4, true, failed ? INK_RED : INK_DIM, number_text(failed, text));
    times(v, m, name, "first_byte");
    times(v, m, name, "token");
    end_line(v);
}

static void rollout_line(struct view *v, const json_t *model)
{
    const json_t *r = json_object_get(model, "rollout");
    char took[NUMBER_TEXT_MAX];

    if (!json_is_object(r))
        return;
    char *text =
        str_fmt("%s: %s %s -> %s is %s for %s", json_text(model, "name", "?"),
                json_text(r, "kind", "update"), json_text(r, "from", "?"), json_text(r, "to", "?"),
                json_text(r, "state", "?"), time_text((double)json_int(r, "state_ms") / 1e3, took));
    cell(v, v->columns - 1, false, INK_YELLOW, text);
    end_line(v);
    free(text);
}

/* --- engines ---------------------------------------------------------- */

static size_t engine_name_width(const struct view *v)
{
    return v->columns > NAME_LEAST + ENGINE_WIDTH + 1 ? v->columns - ENGINE_WIDTH - 1 : NAME_LEAST;
}

static void engine_heads(struct view *v)
{
    static const struct {
        size_t width;
        bool right;
        const char *text;
    } heads[] = {{9, false, "STATE"}, {8, true, "PID"},      {10, true, "MEMORY"},
                 {5, true, "CPU"},    {8, true, "RESTARTS"}, {6, true, "FLIGHT"}};

    cell(v, engine_name_width(v), false, INK_DIM, "ENGINE");
    for (size_t i = 0; i < COUNT_OF(heads); i++) {
        gap(v);
        cell(v, heads[i].width, heads[i].right, INK_DIM, heads[i].text);
    }
    end_line(v);
}

static void engine_line(struct view *v, const json_t *r)
{
    const char *name = json_text(r, "name", "?"), *state = json_text(r, "state", "?");
    const char *reason = json_text(r, "reason", "");
    int64_t pid = json_int(r, "pid"), restarts = json_int(r, "restarts");
    double cpu = rates_cpu(&v->time, "engine", name);
    char text[NUMBER_TEXT_MAX] = "-";

    cell(v, engine_name_width(v), false, INK_PLAIN, name);
    gap(v);
    cell(v, 9, false, state_ink(state), state);
    gap(v);
    if (pid)
        snprintf(text, sizeof(text), "%lld", (long long)pid);
    cell(v, 8, true, INK_PLAIN, text);
    gap(v);
    cell(v, 10, true, INK_PLAIN, pid ? bytes_text(json_int(r, "rss_bytes"), text) : "-");
    gap(v);
    snprintf(text, sizeof(text), cpu < 0 ? "-" : "%.0f%%", cpu * 100);
    cell(v, 5, true, INK_PLAIN, text);
    gap(v);
    cell(v, 8, true, restarts ? INK_YELLOW : INK_DIM, number_text(restarts, text));
    gap(v);
    cell(v, 6, true, INK_PLAIN,
         number_text(json_int(json_object_get(r, "counters"), "in_flight"), text));
    end_line(v);
    if (*reason) {
        char *line = str_fmt("  %s", reason);
        cell(v, v->columns - 1, false, INK_RED, line);
        end_line(v);
        free(line);
    }
}

/* --- the whole -------------------------------------------------------- */

static void compose(struct view *v)
{
    size_t i, k, n;
    json_t *model, *version, *replica;
    const json_t *models = json_object_get(v->now.status, "models");

    head_lines(v);
    end_line(v);
    version_heads(v);
    json_array_foreach(models, i, model)
    {
        json_array_foreach(json_object_get(model, "versions"), k, version)
            version_line(v, model, version);
    }
    json_array_foreach(models, i, model) rollout_line(v, model);
    end_line(v);
    engine_heads(v);
    json_array_foreach(models, i, model)
    {
        json_array_foreach(json_object_get(model, "versions"), k, version)
        {
            json_array_foreach(json_object_get(version, "replicas"), n, replica)
                engine_line(v, replica);
        }
    }
}

static json_t *quantiles_json(const struct view *v, const char *model, const char *version,
                              const char *histogram)
{
    double p50 = rates_quantile(&v->time, model, version, histogram, 0.5);
    double p99 = rates_quantile(&v->time, model, version, histogram, 0.99);

    if (p50 < 0)
        return json_null();
    return json_pack("{s:f, s:f}", "p50", p50 / 1e3, "p99", p99 / 1e3);
}

static json_t *version_json(const struct view *v, const json_t *model, const json_t *version)
{
    static const char *const names[] = {"finished", "failed", "truncated", "cancelled", "tokens"};
    const char *m = json_text(model, "name", "?"), *name = json_text(version, "name", "?");
    json_t *out =
        json_pack("{s:s, s:s, s:s, s:O, s:I}", "model", m, "version", name, "state",
                  json_text(version, "state", "?"), "share", json_object_get(version, "share"),
                  "in_flight", json_int(json_object_get(version, "counters"), "in_flight"));

    for (size_t i = 0; i < COUNT_OF(names); i++)
        json_object_set_new(out, names[i],
                            json_integer(rates_version(&v->time, m, name, names[i])));
    json_object_set_new(out, "first_byte_ms", quantiles_json(v, m, name, "first_byte"));
    json_object_set_new(out, "token_ms", quantiles_json(v, m, name, "token"));
    json_object_set_new(out, "whole_ms", quantiles_json(v, m, name, "whole"));
    json_object_set(out, "replicas", json_object_get(version, "replicas"));
    return out;
}

/* What the interval brought: counts in it, and percentiles in milliseconds. */
static json_t *compose_json(const struct view *v)
{
    const json_t *gateway = json_object_get(v->now.counters, "gateway");
    json_t *versions = json_array(), *counts = json_object(), *model, *version;
    const char *name;
    json_t *value;
    size_t i, k;

    json_object_foreach((json_t *)gateway, name, value)
        json_object_set_new(counts, name, json_integer(rates_gateway(&v->time, name)));
    json_array_foreach(json_object_get(v->now.status, "models"), i, model)
    {
        json_array_foreach(json_object_get(model, "versions"), k, version)
            json_array_append_new(versions, version_json(v, model, version));
    }
    return json_pack("{s:f, s:O, s:o, s:I, s:I, s:o}", "seconds", rates_seconds(&v->time),
                     "gateway", json_object_get(v->now.status, "gateway"), "counts", counts,
                     "connections", json_int(gateway, "opened") - json_int(gateway, "closed"),
                     "held", json_int(gateway, "held_total") - json_int(gateway, "unheld"),
                     "versions", versions);
}

/* The newest reading becomes the one before. */
static void move_on(struct view *v)
{
    reading_fini(&v->before);
    v->before = v->now;
    v->now = (struct reading){0};
}

static void look(struct view *v)
{
    v->columns = screen_columns(stdout);
    if (v->columns < 40)
        v->columns = 40;
    v->colour = screen_has_colour(stdout);
    v->time = (struct span_of_time){v->before.counters, v->now.counters};
}

static void sleep_ms(uint64_t ms)
{
    struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

    while (nanosleep(&t, &t) != 0)
        ;
}

static int once(const struct args *args, struct view *v, uint64_t delay_ms)
{
    sleep_ms(delay_ms);
    int code = take(args, &v->now);
    if (code != CLI_DONE)
        return code;
    look(v);
    if (args_has(args, OPTION_JSON)) {
        json_t *out = compose_json(v);
        say_json(out);
        json_decref(out);
    } else {
        compose(v);
        fwrite(buf_head(v->out), 1, buf_pending(v->out), stdout);
    }
    return CLI_DONE;
}

static void live(const struct args *args, struct view *v, uint64_t delay_ms)
{
    uint64_t wait = 300 < delay_ms ? 300 : delay_ms; /* the first picture comes soon */

    while (!terminal_wait(wait)) {
        bool there = take_quietly(args, &v->now);
        wait = delay_ms;
        buf_clear(v->out);
        if (there) {
            look(v);
            compose(v);
            move_on(v);
        } else {
            buf_add_str(v->out, "the manager does not answer; waiting for it (q ends this)\n");
        }
        terminal_draw(buf_span(v->out));
    }
}

/* "0.5", "2"; false if it is not a number of seconds within the limits. */
static bool parse_delay(const char *text, uint64_t *ms)
{
    char *end;
    double seconds = strtod(text, &end);

    if (end == text || *end || !(seconds * 1000 >= DELAY_LEAST_MS) ||
        !(seconds * 1000 <= DELAY_MOST_MS))
        return false;
    *ms = (uint64_t)(seconds * 1000);
    return true;
}

int run_top(const struct args *args)
{
    struct buf out = {0};
    struct view v = {.out = &out};
    uint64_t delay_ms = DELAY_MS;

    if (args_has(args, OPTION_DELAY) && !parse_delay(args->options[OPTION_DELAY], &delay_ms))
        return say_error(CLI_USAGE, "--delay takes seconds from 0.1 to 3600, not '%s'",
                         args->options[OPTION_DELAY]);
    int code = take(args, &v.before);
    if (code == CLI_DONE) {
        if (args_has(args, OPTION_ONCE) || args_has(args, OPTION_JSON) || !terminal_begin()) {
            code = once(args, &v, delay_ms);
        } else {
            live(args, &v, delay_ms);
            terminal_end();
        }
    }
    reading_fini(&v.before);
    reading_fini(&v.now);
    buf_fini(&out);
    return code;
}
