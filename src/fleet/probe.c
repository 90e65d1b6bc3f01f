/*
 * probe - see probe.h.
 *
 * A probe ends when its fetch has: a cancelled one lives on without its caller
 * until the fetch says that it is over.
 */
#include "fleet/probe.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "fleet/judge.h"
#include "http/client.h"

/* More than any list of models or answer of a few words. */
enum { BODY_MAX = 1 << 20 };

struct probe {
    uv_loop_t *loop; /* borrowed */
    enum probe_kind kind;
    char *address, *prefix, *serve_as, *expect; /* owned */
    bool health_may_lack;                       /* and /v1/models was not tried yet */
    uint64_t timeout_ms;
    uint64_t began_ns;
    probe_cb done;            /* NULL: cancelled */
    void *arg;                /* borrowed; done's */
    struct http_fetch *fetch; /* borrowed; valid until on_done */
};

static void probe_free(struct probe *p)
{
    free(p->address);
    free(p->prefix);
    free(p->serve_as);
    free(p->expect);
    free(p);
}

static void finish(struct probe *p, enum probe_verdict verdict, const char *text)
{
    probe_cb done = p->done;
    void *arg = p->arg;

    probe_free(p);
    if (done)
        done(verdict, text, arg);
}

static void finish_judged(struct probe *p, int result, const char *text, const struct err *err)
{
    if (result == 0)
        finish(p, PROBE_GOOD, text);
    else
        finish(p, PROBE_WRONG, err->text);
}

/* A status that says nothing good. */
static void finish_status(struct probe *p, int status, struct span body)
{
    static const char *const asked[] = {
        [PROBE_HEALTH] = "the health check",
        [PROBE_MODELS] = "/v1/models",
        [PROBE_QUESTION] = "the known question",
    };
    char said[160], text[320];
    bool later = p->kind == PROBE_HEALTH || status == 503 || status == 429;

    judge_excerpt(body, said, sizeof(said));
    snprintf(text, sizeof(text), "%s was answered with status %d%s%s", asked[p->kind], status,
             said[0] ? ": " : "", said);
    finish(p, later ? PROBE_LATER : PROBE_WRONG, text);
}

/* No whole answer.  To the known question that is an answer too, when the time is up. */
static void finish_unanswered(struct probe *p, const struct err *err)
{
    char said[ERR_TEXT_MAX], text[ERR_TEXT_MAX + 128];
    uint64_t took_ms = (clock_ns() - p->began_ns) / 1000000;

    judge_excerpt(span_str(err->text), said, sizeof(said));
    if (p->kind == PROBE_QUESTION && took_ms >= p->timeout_ms) {
        snprintf(text, sizeof(text),
                 "the known question was not answered within %llu ms (`ready.timeout`)",
                 (unsigned long long)p->timeout_ms);
        finish(p, PROBE_WRONG, text);
    } else {
        finish(p, PROBE_LATER, said);
    }
}

static void ask(struct probe *p, const char *method, const char *target, const char *body);

static void on_done(int status, struct span body, const struct err *err, void *arg)
{
    struct probe *p = arg;
    struct err why;
    char *text = NULL;

    p->fetch = NULL;
    if (!p->done) {
        finish(p, PROBE_LATER, "");
    } else if (status == 0) {
        finish_unanswered(p, err);
    } else if (status == 404 && p->health_may_lack) {
        p->health_may_lack = false;
        ask(p, "GET", "/v1/models", NULL);
    } else if (p->kind == PROBE_MODELS && (status == 404 || status == 405 || status == 501)) {
        /* It has no list. The known question names the model, so it is asked there. */
        finish(p, PROBE_GOOD, "");
    } else if (status != 200) {
        finish_status(p, status, body);
    } else if (p->kind == PROBE_MODELS) {
        finish_judged(p, judge_models(body, p->serve_as, &why), "", &why);
    } else if (p->kind == PROBE_QUESTION) {
        int result = judge_answer(body, p->expect, &text, &why);
        finish_judged(p, result, text, &why);
        free(text);
    } else {
        finish(p, PROBE_GOOD, "");
    }
}

static void ask(struct probe *p, const char *method, const char *target, const char *body)
{
    static const struct http_fetch_events events = {.on_done = on_done};
    char *full = str_fmt("%s%s", p->prefix, target);
    struct http_fetch_options options = {
        .address = p->address,
        .method = method,
        .target = full,
        .headers = body ? "Content-Type: application/json\r\n" : NULL,
        .body = span_str(body),
        .timeout_ms = p->timeout_ms,
        .body_max = BODY_MAX,
    };

    p->fetch = http_fetch_start(p->loop, &options, &events, p);
    free(full);
}

static char *question(const struct probe_target *t)
{
    json_t *body = json_pack("{s:s, s:[{s:s, s:s}], s:i, s:i, s:b}", "model", t->serve_as,
                             "messages", "role", "user", "content", t->ready->ask, "temperature", 0,
                             "max_tokens", (int)t->ready->max_tokens, "stream", 0);

    ALWAYS(body);
    char *text = json_dumps(body, JSON_COMPACT);
    ALWAYS(text);
    json_decref(body);
    return text;
}

struct probe *probe_start(uv_loop_t *loop, enum probe_kind kind, const struct probe_target *target,
                          probe_cb done, void *arg)
{
    struct probe *p = NEW(struct probe);

    p->loop = loop;
    p->kind = kind;
    p->address = str_dup(target->address);
    p->prefix = str_dup(target->prefix);
    p->serve_as = str_dup(target->serve_as);
    p->expect = str_dup(target->ready->expect);
    p->health_may_lack = kind == PROBE_HEALTH && target->health_may_lack;
    p->timeout_ms = target->timeout_ms;
    p->began_ns = clock_ns();
    p->done = done;
    p->arg = arg;
    if (kind == PROBE_QUESTION) {
        char *body = question(target);
        ask(p, "POST", "/v1/chat/completions", body);
        free(body);
    } else {
        ask(p, "GET", kind == PROBE_HEALTH ? "/health" : "/v1/models", NULL);
    }
    return p;
}

void probe_cancel(struct probe *p)
{
    p->done = NULL;
    if (p->fetch)
        http_fetch_cancel(p->fetch);
}
