/*
 * follow - waits for an operation of the manager and shows how it goes.
 *
 *   operation ── SSE ──▶ progress, progress, ... end
 *
 * On a terminal the step that is under way is one line that counts its time;
 * otherwise each step is printed when it begins.  Steps go to standard error,
 * the receipt to standard output.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/ask.h"
#include "cli/internal.h"
#include "cli/screen.h"
#include "cli/sse.h"

enum { TICK_MS = 100, LEFT_COLUMNS = 28 };

struct follow {
    uv_loop_t loop;
    uv_timer_t tick;
    uv_signal_t interrupt;
    struct http_fetch *fetch; /* borrowed; NULL when it is done */
    struct sse sse;
    struct buf refusal; /* the body of an answer that is not 200 */
    const char *title;  /* borrowed */
    bool shows_steps, terminal, colour;
    char *state, *detail; /* owned; NULL before the first step */
    uint64_t began_ns, state_ns;
    json_t *end; /* owned; the end event */
    int status;
    bool interrupted;
    struct err err;
};

static double since(uint64_t ns)
{
    return (double)(clock_ns() - ns) / 1e9;
}

/* The line of the step under way, or, when it is over, what stays of it. */
static void draw(struct follow *f, bool over)
{
    char took[NUMBER_TEXT_MAX];
    struct buf line = {0};

    if (!f->terminal || !f->state)
        return;
    buf_add_str(&line, "\r\033[K  ");
    ink_add(&line, over ? INK_GREEN : INK_CYAN, f->colour, f->state);
    size_t width = text_width(f->state), columns = screen_columns(stderr);
    buf_addf(&line, "%*s%9s", (int)(width < 13 ? 13 - width : 1), "",
             time_text(since(f->state_ns), took));
    if (f->detail && *f->detail && columns > LEFT_COLUMNS) {
        /* A line that wraps could not be drawn over. */
        char *detail = span_dup(span_of(f->detail, text_fit(f->detail, columns - LEFT_COLUMNS)));
        buf_add_str(&line, "  ");
        ink_add(&line, INK_DIM, f->colour, detail);
        free(detail);
    }
    if (over)
        buf_add_char(&line, '\n');
    fwrite(buf_head(&line), 1, buf_pending(&line), stderr);
    fflush(stderr);
    buf_fini(&line);
}

static void take_progress(struct follow *f, const json_t *event)
{
    const char *state = json_text(event, "state", ""), *detail = json_text(event, "detail", "");
    bool new_state = !f->state || strcmp(f->state, state) != 0;
    bool new_detail = !f->detail || strcmp(f->detail, detail) != 0;

    if (new_state) {
        draw(f, true);
        f->state_ns = clock_ns();
    }
    free(f->state);
    free(f->detail);
    f->state = str_dup(state);
    f->detail = str_dup(detail);
    draw(f, false);
    if (f->shows_steps && !f->terminal && (new_state || new_detail))
        fprintf(stderr, "%7.1f s  %s%s%s\n", since(f->began_ns), state, *detail ? ": " : "",
                detail);
}

static void on_event(const char *event, struct span data, void *arg)
{
    struct follow *f = arg;
    json_t *json = json_loadb(data.p, data.n, 0, NULL);

    if (json && strcmp(event, "progress") == 0)
        take_progress(f, json);
    if (json && strcmp(event, "end") == 0 && !f->end)
        f->end = json_incref(json);
    json_decref(json);
}

static void on_head(const struct http_response_head *head, void *arg)
{
    struct follow *f = arg;

    f->status = head->status;
}

static void on_data(struct span data, void *arg)
{
    struct follow *f = arg;

    if (f->status != 200 && buf_pending(&f->refusal) < SSE_EVENT_MAX)
        buf_add_span(&f->refusal, data);
    else if (f->status == 200 && !sse_feed(&f->sse, data, on_event, f))
        http_fetch_cancel(f->fetch);
}

static void on_done(int status, struct span body, const struct err *err, void *arg)
{
    struct follow *f = arg;

    f->fetch = NULL;
    if (status == 0)
        f->err = *err;
    uv_close((uv_handle_t *)&f->tick, NULL);
    uv_close((uv_handle_t *)&f->interrupt, NULL);
}

static void on_tick(uv_timer_t *tick)
{
    draw(tick->data, false);
}

static void on_interrupt(uv_signal_t *interrupt, int signum)
{
    struct follow *f = interrupt->data;

    f->interrupted = true;
    if (f->fetch)
        http_fetch_cancel(f->fetch);
}

static void run(struct follow *f, const struct args *args, int64_t operation)
{
    char *address = ask_admin_address(args);
    char *target = str_fmt("/admin/v1/operations/%lld/events", (long long)operation);
    struct http_fetch_events events = {on_head, on_data, on_done};
    struct http_fetch_options options = {.address = address,
                                         .method = "GET",
                                         .target = target,
                                         .headers = "Accept: text/event-stream\r\n"};

    ALWAYS(uv_loop_init(&f->loop) == 0);
    uv_timer_init(&f->loop, &f->tick);
    uv_signal_init(&f->loop, &f->interrupt);
    f->tick.data = f->interrupt.data = f;
    uv_timer_start(&f->tick, on_tick, TICK_MS, TICK_MS);
    uv_signal_start(&f->interrupt, on_interrupt, SIGINT);
    f->fetch = http_fetch_start(&f->loop, &options, &events, f);
    ask_run(&f->loop);
    free(address);
    free(target);
}

/* No end event came: say why, as far as it can be known. */
static int end_missing(struct follow *f, const struct args *args)
{
    if (f->interrupted) {
        fprintf(stderr, "the %s goes on without this terminal; `segue status -w` shows it\n",
                f->title);
        return CLI_INTERRUPTED;
    }
    if (f->status && f->status != 200) {
        json_t *json = json_loadb(buf_head(&f->refusal), buf_pending(&f->refusal), 0, NULL);
        const char *message = ask_error_message(json);
        int code =
            say_error(CLI_REFUSED, "%s", message ? message : "the operation cannot be followed");
        json_decref(json);
        return code;
    }
    if (!f->status)
        return ask_no_server(args, f->err.text);
    return say_error(CLI_NO_SERVER,
                     "the manager went away while the %s was %s; `segue rollouts` tells what "
                     "became of it",
                     f->title, f->state ? f->state : "beginning");
}

static int say_end(struct follow *f, const struct args *args)
{
    const json_t *receipt = json_object_get(f->end, "receipt");
    bool ok = json_is_true(json_object_get(f->end, "ok"));
    const char *error = ask_error_message(f->end);

    if (!error)
        error = json_text(f->end, "error", json_text(receipt, "reason", "no reason was given"));
    if (args_has(args, OPTION_JSON))
        say_json(f->end);
    else if (json_is_object(receipt))
        say_receipt(receipt);
    if (ok)
        return CLI_DONE;
    bool rolled_back = strcmp(json_text(receipt, "result", ""), "rolled back") == 0 ||
                       strcmp(json_text(f->end, "result", ""), "rolled back") == 0;
    return say_error(rolled_back ? CLI_ROLLED_BACK : CLI_REFUSED, "the %s %s: %s", f->title,
                     rolled_back ? "was rolled back" : "failed", error);
}

int follow_operation(const struct args *args, int64_t operation, const char *title)
{
    struct follow f = {.title = title, .began_ns = clock_ns()};

    f.state_ns = f.began_ns;
    f.shows_steps = !args_has(args, OPTION_JSON);
    f.terminal = f.shows_steps && screen_is_terminal(stderr);
    f.colour = screen_has_colour(stderr);
    run(&f, args, operation);
    draw(&f, f.end != NULL);
    if (f.terminal && f.state && !f.end)
        fputc('\n', stderr);
    int code = f.end ? say_end(&f, args) : end_missing(&f, args);
    json_decref(f.end);
    free(f.state);
    free(f.detail);
    buf_fini(&f.refusal);
    sse_fini(&f.sse);
    return code;
}
