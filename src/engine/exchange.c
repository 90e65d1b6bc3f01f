/* exchange - see exchange.h. */
#include "engine/exchange.h"

#include <stdlib.h>

#include "base/alloc.h"

struct exchange {
    struct list link;
    struct exchanges *all;   /* borrowed */
    struct http_call *call;  /* the server's; valid while we are linked */
    struct request *request; /* counted */
    struct answer answer;
    size_t n, left;          /* streams, and those that have not ended */
    struct stream **streams; /* owned array of counted streams */
    struct choice *choices;  /* owned array */
    bool started;            /* the head of a streamed answer is out */
    struct buf bytes;        /* events of one turn */
};

/* Lets go of everything; streams that still run are cancelled. */
static void drop(struct exchange *x)
{
    list_remove(&x->link);
    for (size_t i = 0; i < x->n; i++) {
        x->streams[i]->owner = NULL;
        if (x->choices[i].finish == FINISH_NONE)
            engine_cancel(x->all->engine, x->streams[i]);
        stream_unref(x->streams[i]);
        buf_fini(&x->choices[i].text);
    }
    free(x->streams);
    free(x->choices);
    buf_fini(&x->bytes);
    request_unref(x->request);
    free(x);
}

static void on_gone(struct http_call *call, void *arg)
{
    drop(arg);
}

/* The exchange cannot be completed: says so as far as that is still possible. */
static void fail(struct exchange *x, int status, const char *code, const char *why)
{
    struct http_call *call = x->call;

    if (!x->started) {
        drop(x);
        http_call_error(call, status, code, "%s", why);
        return;
    }
    buf_clear(&x->bytes);
    answer_error(why, &x->bytes);
    http_call_write(call, buf_span(&x->bytes));
    drop(x);
    http_call_cut(call);
}

static struct exchange *make(struct exchanges *all, struct http_call *call, struct request *r)
{
    struct exchange *x = NEW(struct exchange);

    x->all = all;
    x->call = call;
    x->request = r;
    x->n = x->left = r->nprompts * (size_t)r->n;
    x->streams = mem_zero(x->n * sizeof(x->streams[0]));
    x->choices = mem_zero(x->n * sizeof(x->choices[0]));
    for (size_t i = 0; i < x->n; i++) {
        x->streams[i] = stream_new(r, (int)i);
        x->streams[i]->owner = x;
    }
    answer_begin(&x->answer, r, all->model);
    list_append(&all->open, &x->link);
    return x;
}

void exchange_begin(struct exchanges *all, struct http_call *call, struct request *request)
{
    struct exchange *x = make(all, call, request);
    struct err err;

    for (size_t i = 0; i < x->n; i++)
        stream_ref(x->streams[i]);
    if (engine_submit(all->engine, x->streams, x->n, &err)) {
        for (size_t i = 0; i < x->n; i++)
            stream_unref(x->streams[i]);
        drop(x);
        http_call_error(call, err.status, "overloaded", "%s", err.text);
        return;
    }
    http_call_on_gone(call, on_gone, x);
}

static void write_events(struct exchange *x, struct stream *s, const struct said *said)
{
    struct choice *c = &x->choices[s->index];
    struct http_call *call = x->call;

    buf_clear(&x->bytes);
    if (buf_pending(&said->text)) {
        answer_text(&x->answer, s->index, !c->begun, buf_span(&said->text), &x->bytes);
        c->begun = true;
    }
    if (said->finish != FINISH_NONE) {
        answer_finish(&x->answer, s->index, !c->begun, said->finish, &x->bytes);
        c->begun = true;
    }
    if (x->left == 0) {
        if (x->request->stream_usage)
            answer_usage(&x->answer, x->request, x->choices, x->n, &x->bytes);
        answer_done(&x->bytes);
    }
    if (!x->started)
        http_call_start(call, 200, "text/event-stream; charset=utf-8",
                        "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n");
    x->started = true;
    struct buf bytes = x->bytes; /* writing may call on_gone, which frees x */
    x->bytes = (struct buf){0};
    bool last = x->left == 0;
    if (last)
        drop(x);
    http_call_write(call, buf_span(&bytes));
    if (last)
        http_call_finish(call);
    buf_fini(&bytes);
}

static void reply(struct exchange *x)
{
    struct http_call *call = x->call;
    struct buf bytes = {0};

    answer_whole(&x->answer, x->request, x->choices, x->n, &bytes);
    drop(x);
    http_call_reply(call, 200, "application/json", NULL, buf_span(&bytes));
    buf_fini(&bytes);
}

void exchange_said(struct exchanges *all, struct stream *s, const struct said *said)
{
    struct exchange *x = s->owner;

    if (!x)
        return; /* its client has left */
    struct choice *c = &x->choices[s->index];
    c->tokens = said->tokens;
    c->reused = said->reused;
    c->finish = said->finish;
    if (said->finish != FINISH_NONE)
        x->left--;
    if (said->finish == FINISH_FAILED) {
        fail(x, 500, "engine_failed", said->error);
    } else if (x->request->stream) {
        write_events(x, s, said);
    } else {
        buf_add_span(&c->text, buf_span(&said->text));
        if (x->left == 0)
            reply(x);
    }
}

void exchange_cut_all(struct exchanges *all, const char *why)
{
    while (!list_empty(&all->open))
        fail(CONTAINER_OF(all->open.next, struct exchange, link), 503, "shutting_down", why);
}
