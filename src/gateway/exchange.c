/*
 * gateway/exchange - one request and its answer, from whole request to booked outcome.
 *
 *            dispatch            on_connected        answer_feed        finish
 *     NEW ─────────────▶ CONNECTING ─────▶ WAITING ─────▶ RELAYING ─────▶ ENDED
 *      │  ▲  a kept connection: at once ──────▲  │            │              ▲
 *      ▼  │ hold_release         └── retry ──┐   │            └── truncated ─┤
 *     HELD ◀────────────────────────────────────┘                           │
 *      └────────────── deadline, overload, no replica ──────────────────────┘
 *
 * Until the first relayed byte a failure moves the exchange to another replica
 * or holds it; an engine may see a request at most SENT_MAX times, so that a
 * request which kills engines does not kill all of them.  After the first
 * relayed byte a failure is a visible cut.
 *
 * Every exchange is counted in at one replica at most, and booked there with
 * exactly one outcome (book()); that is what "drained" is computed from.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "gateway/internal.h"
#include "gateway/keyring.h"
#include "gateway/route.h"
#include "gateway/sticky.h"

enum {
    SENT_MAX = 2,        /* the first time and one retry */
    STALE_MAX = 1,       /* kept connections that were closed under us; more are failures, or a
                            request that kills engines would reach all of them */
    AVOID_MIN_MS = 20,   /* pause of a replica after its first failure ... */
    AVOID_MAX_MS = 1000, /* ... and at most */
    BAD_MAX = 5,         /* 5xx answers in a row after which a replica is left out */
    HOLD_RETRY_MS = 20
};

#define HEARTBEAT_NS UINT64_C(5000000000) /* a held stream's client hears from us so often */

static void on_hold_timer(struct timer *timer);
static void refuse(struct exchange *x, enum gateway_error e, const char *text);

static void set_state(struct exchange *x, enum exchange_state next)
{
#define TO(id) (1u << EXCHANGE_##id)
    static const unsigned allowed[] = {
        [EXCHANGE_NEW] = TO(HELD) | TO(CONNECTING) | TO(ENDED),
        [EXCHANGE_HELD] = TO(NEW) | TO(ENDED),
        [EXCHANGE_CONNECTING] = TO(NEW) | TO(WAITING) | TO(ENDED),
        [EXCHANGE_WAITING] = TO(NEW) | TO(RELAYING) | TO(ENDED),
        [EXCHANGE_RELAYING] = TO(ENDED),
        [EXCHANGE_ENDED] = 0,
    };
#undef TO
    ALWAYS(allowed[x->state] & 1u << next);
    x->state = next;
    bool with_engine =
        next == EXCHANGE_CONNECTING || next == EXCHANGE_WAITING || next == EXCHANGE_RELAYING;
    ALWAYS((x->upstream != NULL) == with_engine);
    ALWAYS((x->pool != NULL) == with_engine);
    ALWAYS(!list_empty(&x->link) == (next == EXCHANGE_HELD));
    if (x->waited && (next == EXCHANGE_WAITING || next == EXCHANGE_ENDED)) {
        x->waited = false;
        counter_add(&x->worker->row->unheld, 1);
    }
}

/* --- counting --------------------------------------------------------------- */

static void count_in(struct exchange *x, struct pool *p, bool pinned)
{
    counter_add(pinned ? &p->row->pinned : &p->row->started, 1);
    if (!pinned)
        atomic_store_explicit(&p->row->last_start_ns, clock_ns(), memory_order_relaxed);
    if (p->failures && !p->trial)
        p->trial = x;
    x->pool = p;
    x->tries++;
}

static void book(struct exchange *x, enum outcome outcome)
{
    struct replica_row *row = x->pool->row;
    _Atomic uint64_t *const counter[] = {
        [OUTCOME_FINISHED] = &row->finished,   [OUTCOME_FAILED] = &row->failed,
        [OUTCOME_TRUNCATED] = &row->truncated, [OUTCOME_CANCELLED] = &row->cancelled,
        [OUTCOME_RETRIED] = &row->retried,
    };

    counter_add(counter[outcome], 1);
    if (x->pool->trial == x)
        x->pool->trial = NULL;
    x->pool = NULL;
}

/* Lets go of the engine: the connection is kept (reuse) or closed. */
static void leave_engine(struct exchange *x, enum outcome outcome, bool reuse)
{
    struct upstream *u = x->upstream;

    if (x->pool)
        book(x, outcome);
    x->upstream = NULL;
    if (u && reuse)
        upstream_put(u);
    else if (u)
        upstream_close(u);
}

/* --- the end ---------------------------------------------------------------- */

static void release(struct grave *g)
{
    struct exchange *x = CONTAINER_OF(g, struct exchange, grave);

    view_unref(x->view);
    buf_fini(&x->request);
    free(x);
}

/* Requests that are kept for another try count against the memory of bodies. */
static void count_request(struct exchange *x, size_t bytes)
{
    x->worker->body_bytes += bytes - x->counted;
    x->counted = bytes;
}

/* The exchange is over; what the client is told is the caller's next line. */
static struct client *end(struct exchange *x)
{
    struct client *c = x->client;

    set_state(x, EXCHANGE_ENDED);
    timer_clear(&x->timer);
    c->exchange = NULL;
    count_request(x, 0);
    x->worker->nexchanges--;
    if (c->note)
        access_exchange(c, x);
    if (x->key)
        api_key_leave(x->key);
    x->key = NULL;
    loop_bury(&x->worker->loop, &x->grave, release);
    return c;
}

/* Only answers that came whole tell how fast an engine is. */
static void time_answer(const struct exchange *x)
{
    struct replica_row *row = x->pool->row;
    uint64_t now = x->worker->loop.now_ns;

    histogram_add(&row->whole, (now - x->began_ns) / 1000);
    if (x->first_ns == 0)
        return;
    histogram_add(&row->first_byte,
                  x->first_ns > x->sent_ns ? (x->first_ns - x->sent_ns) / 1000 : 0);
    if (x->events > 1)
        histogram_add(&row->token, (now - x->first_ns) / 1000 / (x->events - 1));
}

static void avoid(struct exchange *x);

static void mark_tried(struct exchange *x)
{
    x->tried |= UINT64_C(1) << (unsigned)(x->replica - x->version->replicas) % 64;
}

/* An engine that answers, but only with errors, is left out while others can answer. */
static void judge_status(struct exchange *x)
{
    struct pool *p = x->pool;

    if (x->status < 500) {
        p->bad = 0;
        time_answer(x);
    } else if (++p->bad >= BAD_MAX && route_other_usable(x->worker, x->version, x->replica)) {
        log_warn("%s (%s) answered %u requests in a row with an error; it is left out for a while",
                 x->version->tag, x->replica->address, p->bad);
        avoid(x);
    }
}

static void finish(struct exchange *x, bool reuse)
{
    judge_status(x);
    leave_engine(x, x->status >= 500 ? OUTCOME_FAILED : OUTCOME_FINISHED, reuse);
    client_answered(end(x));
}

static void truncate_answer(struct exchange *x, const char *why)
{
    log_warn("request %s: answer of %s (%s) cut short: %s", x->request_id, x->version->tag,
             x->replica->address, why);
    if (x->sse)
        answer_error_frame(x, "engine_gone",
                           "the answer is not complete: its engine ended in the middle of it");
    leave_engine(x, OUTCOME_TRUNCATED, false);
    client_cut(end(x));
}

void exchange_cancel(struct exchange *x)
{
    if (x->state == EXCHANGE_HELD)
        hold_remove(x);
    leave_engine(x, OUTCOME_CANCELLED, false);
    struct client *c = end(x);
    if (c->note)
        access_end(c, ACCESS_CANCELLED);
}

void exchange_stop(struct exchange *x)
{
    if (x->state == EXCHANGE_RELAYING) {
        truncate_answer(x, "the time to finish is over");
        return;
    }
    if (x->state == EXCHANGE_HELD)
        hold_remove(x);
    refuse(x, GATEWAY_ERROR_STOPPING, "the server is being stopped");
}

/* --- failures before the first relayed byte -------------------------------- */

static void avoid(struct exchange *x)
{
    struct pool *p = x->pool;
    uint64_t now = x->worker->loop.now_ns;
    uint64_t pause_ms = AVOID_MIN_MS;

    if (p->avoid_until_ns > now) /* already known; a burst is one failure */
        return;
    if (x->upstream && x->upstream->address_id != p->address_id)
        return; /* the slot's former engine, not the one that has it now */
    for (unsigned i = 0; i < p->failures && pause_ms < AVOID_MAX_MS; i++)
        pause_ms *= 2;
    p->failures++;
    p->avoid_until_ns = now + (pause_ms > AVOID_MAX_MS ? AVOID_MAX_MS : pause_ms) * 1000000;
    p->avoid_epoch = x->worker->view->table->epoch;
    pool_close_idle(p);
}

/* Another try, elsewhere if possible. */
static void retry(struct exchange *x)
{
    leave_engine(x, OUTCOME_RETRIED, false);
    set_state(x, EXCHANGE_NEW);
    exchange_dispatch(x);
}

static void refuse(struct exchange *x, enum gateway_error e, const char *text)
{
    const char *tag = x->version ? x->version->tag : NULL;

    leave_engine(x, OUTCOME_FAILED, false);
    if (x->committed) { /* too late for a status: the stream says it */
        answer_error_frame(x, gateway_error_row(e)->code, text);
        counter_add(&x->worker->row->errors_5xx, 1);
        if (x->client->note)
            access_error(x->client, gateway_error_row(e)->code);
        client_cut(end(x));
        return;
    }
    if (tag)
        client_error(end(x), e, "%s (%s)", text, tag);
    else
        client_error(end(x), e, "%s", text);
}

void exchange_on_upstream_end(struct exchange *x, int why)
{
    struct upstream *u = x->upstream;
    bool silent = buf_pending(&u->in) == 0 && x->interim == 0;

    if (x->state == EXCHANGE_RELAYING) {
        bool whole = why == 0 && x->from == HTTP_BODY_CLOSE && (!x->sse || answer_sse_done(x));
        if (!whole)
            truncate_answer(x, why ? strerror(why) : "the engine closed the connection");
        else if (answer_end(x) < 0)
            client_close(x->client);
        else
            finish(x, false);
        return;
    }
    if (x->state == EXCHANGE_WAITING && u->reused && silent && ++x->stale <= STALE_MAX) {
        /* The engine had closed a kept connection while we wrote to it: it has
         * not seen the request.  A fresh connection tells more. */
        x->sent--;
        pool_close_idle(x->pool);
        retry(x);
        return;
    }
    log_warn("request %s: %s (%s) %s before its answer: %s", x->request_id, x->version->tag,
             x->replica->address, x->state == EXCHANGE_CONNECTING ? "not reached" : "ended",
             why ? strerror(why) : "connection closed");
    avoid(x);
    mark_tried(x);
    if (x->sent >= SENT_MAX)
        refuse(x, GATEWAY_ERROR_ENGINE_GONE, "the engine ended before it answered, twice");
    else
        retry(x);
}

void exchange_on_timeout(struct exchange *x)
{
    log_warn("request %s: %s (%s) timed out while %s", x->request_id, x->version->tag,
             x->replica->address,
             x->state == EXCHANGE_CONNECTING ? "connecting (timeouts.connect)"
             : x->state == EXCHANGE_WAITING  ? "waiting for its answer (timeouts.first_byte)"
                                             : "relaying (timeouts.between_bytes)");
    if (x->state == EXCHANGE_RELAYING) {
        truncate_answer(x, "the engine fell silent (timeouts.between_bytes)");
    } else if (x->state == EXCHANGE_CONNECTING) {
        avoid(x);
        mark_tried(x);
        retry(x);
    } else {
        avoid(x);
        refuse(x, GATEWAY_ERROR_ENGINE_TIMEOUT,
               "the engine did not begin its answer in time (timeouts.first_byte)");
    }
}

/* --- choosing and sending --------------------------------------------------- */

static void send_request(struct exchange *x)
{
    struct worker *w = x->worker;

    x->sent++;
    x->sent_ns = clock_ns();
    set_state(x, EXCHANGE_WAITING);
    if (request_send(x) < 0) {
        exchange_on_upstream_end(x, errno);
        return;
    }
    timer_set(&w->loop.timers, &x->upstream->timer,
              w->loop.now_ns + x->view->table->timeouts.first_byte);
}

void exchange_on_connected(struct exchange *x)
{
    send_request(x);
}

static void no_such_model(struct exchange *x)
{
    struct buf text = {0};

    if (x->name[0])
        buf_addf(&text, "the model '%s' does not exist; there is: ", x->name);
    else
        buf_add_str(&text, "the request names no `model`, and there are several: ");
    table_names_text(x->view->table, &text);
    refuse(x, GATEWAY_ERROR_MODEL_NOT_FOUND, buf_cstr(&text));
    buf_fini(&text);
}

static bool find_model(struct exchange *x, struct table_match *match)
{
    const struct table *t = x->view->table;

    if (x->name[0])
        return table_find(t, span_str(x->name), match);
    if (t->nmodels != 1)
        return false;
    *match = (struct table_match){t->models[0], NULL};
    return true;
}

/* What keeps us from connecting, whoever is at the other end. */
static bool our_shortage(int why)
{
    return why == EMFILE || why == ENFILE || why == ENOMEM || why == ENOBUFS ||
           why == EADDRNOTAVAIL;
}

/* Chooses by the worker's newest table and sends, or holds, or says no. */
void exchange_dispatch(struct exchange *x)
{
    struct worker *w = x->worker;
    const struct version_route *before = x->version;
    struct table_match match;
    char text[512];

    if (x->view != w->view) {
        view_unref(x->view);
        x->view = w->view;
        x->view->refs++;
        before = NULL;
    }
    x->version = NULL;
    x->replica = NULL;
    if (!find_model(x, &match)) {
        no_such_model(x);
        return;
    }
    if (x->key && !api_key_allows(x->key, match.model->name)) {
        snprintf(text, sizeof(text), "the API key '%s' may not use the model '%s'", x->key->name,
                 match.model->name);
        refuse(x, GATEWAY_ERROR_KEY_MODEL, text);
        return;
    }
    x->version = match.version
                     ? match.version
                     : route_version(match.model, x->sticky ? x->sticky : worker_random(w));
    if (x->version != before)
        x->tried = 0; /* bits of another version's replicas */
    while (x->version && (x->replica = route_replica(w, x->version, x->tried)) != NULL) {
        struct pool *p = pool_of(w, x->replica);
        count_in(x, p, match.version != NULL);
        x->upstream = upstream_get(w, x->replica, p, x);
        if (x->upstream) {
            set_state(x, EXCHANGE_CONNECTING);
            if (x->upstream->state == UPSTREAM_BUSY)
                send_request(x);
            return;
        }
        int why = errno;
        log_warn("request %s: %s (%s) not reached: %s", x->request_id, x->version->tag,
                 x->replica->address, strerror(why));
        if (!our_shortage(why))
            avoid(x);
        book(x, OUTCOME_RETRIED);
        if (our_shortage(why))
            break; /* waits until there are descriptors, memory or ports again */
        mark_tried(x);
    }
    hold_add(x, match.model);
}

/* One large body always has room; others only while the worker's part lasts. */
static bool body_fits(const struct client *c, size_t n)
{
    const struct worker *w = c->worker;
    size_t others = w->body_bytes - c->counted;
    size_t part = w->view->table->limits.body_memory_bytes / w->gateway_workers;

    return n <= BODY_SMALL || others <= BODY_SMALL || others + n <= part;
}

/* The value of the field that the configuration names, e.g. X-Session-Id. */
static struct span sticky_header(const struct table *t, const struct http_request_head *head)
{
    struct span name = span_str(t->sticky_header);

    for (size_t i = 0; name.n && i < head->nfields; i++)
        if (span_eq_nocase(head->fields[i].name, name))
            return head->fields[i].value;
    return span_of(NULL, 0);
}

/* The request counts against its key's limits; false: it is over them, and was answered. */
static bool take_key(struct exchange *x, struct api_key *key)
{
    uint64_t wait_ns = 0;
    char headers[64];

    switch (api_key_enter(key, x->worker->loop.now_ns, &wait_ns)) {
    case KEY_WELCOME:
        x->key = key;
        return true;
    case KEY_TOO_MANY:
        client_error_headers(end(x), GATEWAY_ERROR_KEY_TOO_MANY, "Retry-After: 1\r\n",
                             "the API key '%s' may have %u requests at a time (its concurrency)",
                             key->name, key->concurrency);
        return false;
    case KEY_TOO_OFTEN:
        break;
    }
    snprintf(headers, sizeof(headers), "Retry-After: %llu\r\n",
             (unsigned long long)(wait_ns / 1000000000 + 1));
    client_error_headers(end(x), GATEWAY_ERROR_KEY_TOO_OFTEN, headers,
                         "the API key '%s' may begin %u requests in a second (its rate)", key->name,
                         key->rate);
    return false;
}

void exchange_begin(struct client *c, const struct http_request_head *head, struct span body)
{
    struct worker *w = c->worker;
    enum { MODEL, STREAM, USER, MESSAGES, PROMPT };
    struct json_member members[] = {
        [MODEL] = {.name = "model"},       [STREAM] = {.name = "stream"}, [USER] = {.name = "user"},
        [MESSAGES] = {.name = "messages"}, [PROMPT] = {.name = "prompt"},
    };
    struct json_member *model = &members[MODEL];
    bool empty = false;
    size_t at = 0;
    enum json_fault fault = json_scan(body, members, COUNT_OF(members), &at, &empty);
    struct exchange *x = NEW(struct exchange);
    unsigned limit = w->view->table->limits.exchanges / w->gateway_workers;

    x->worker = w;
    x->client = c;
    x->view = w->view;
    x->view->refs++;
    x->began_ns = w->loop.now_ns;
    c->exchange = x;
    list_init(&x->link);
    timer_init(&x->timer, on_hold_timer);
    if (w->nexchanges++ >= (limit ? limit : 1)) {
        /* Shed before any work is done for it: what is served stays served well. */
        client_error(end(x), GATEWAY_ERROR_OVERLOADED,
                     "too many requests are being answered already (limits.exchanges)");
        return;
    }
    if (c->key && !take_key(x, c->key))
        return;
    if (fault != JSON_NONE) {
        if (fault == JSON_EMPTY)
            client_error(end(x), GATEWAY_ERROR_BAD_JSON, "%s", json_fault_text(fault));
        else
            client_error(end(x), GATEWAY_ERROR_BAD_JSON, "%s (at byte %zu)", json_fault_text(fault),
                         at);
        return;
    }
    if (model->kind == JSON_STRING) {
        if (json_scan_string(model->value, x->name, sizeof(x->name)) < 0) {
            client_error(end(x), GATEWAY_ERROR_BAD_MODEL,
                         "`model` is not a plain string of at most %d bytes", TABLE_NAME_MAX);
            return;
        }
    } else if (model->kind != JSON_ABSENT && model->kind != JSON_NULL) {
        client_error(end(x), GATEWAY_ERROR_BAD_MODEL, "`model` must be a string");
        return;
    }
    x->stream = members[STREAM].kind == JSON_TRUE;
    if (w->view->table->split)
        x->sticky = sticky_number(&(struct sticky_source){
            .header = sticky_header(w->view->table, head),
            .user = members[USER].kind == JSON_STRING ? members[USER].value : span_of(NULL, 0),
            .messages = members[MESSAGES].value,
            .prompt = members[PROMPT].value,
        });
    if (!body_fits(c, body.n)) {
        client_error(end(x), GATEWAY_ERROR_OVERLOADED,
                     "too many request bodies are kept at once (limits.body_memory_bytes)");
        return;
    }
    request_store(x, head, body, model, empty);
    count_request(x, x->request.cap);
    exchange_dispatch(x);
}

/* --- the answer -------------------------------------------------------------- */

void exchange_relaying(struct exchange *x)
{
    if (x->status < 500)
        x->pool->failures = 0;
    x->pool->trial = NULL;
    set_state(x, EXCHANGE_RELAYING);
    count_request(x, 0);
    buf_fini(&x->request); /* there is no other try after this */
}

/* Bytes that answer_feed() has left: the beginning of a head. */
static bool keep_rest(struct upstream *u, const char *p, size_t n, size_t used, bool kept)
{
    if (kept)
        buf_consume(&u->in, used);
    else
        buf_add(&u->in, p + used, n - used);
    return buf_pending(&u->in) <= ENGINE_HEAD_MAX;
}

static void bad_answer(struct exchange *x)
{
    bool no_stream = x->state == EXCHANGE_WAITING && x->committed && x->status;

    if (!no_stream || x->status >= 500)
        avoid(x);
    if (x->state == EXCHANGE_RELAYING)
        truncate_answer(x, "the answer's framing is broken");
    else if (no_stream)
        refuse(x, GATEWAY_ERROR_ENGINE_ANSWER, "the engine answered with an error");
    else
        refuse(x, GATEWAY_ERROR_ENGINE_ANSWER, "the engine's answer was not valid HTTP/1.1");
}

bool exchange_on_bytes(struct exchange *x, char *p, size_t n, bool drained)
{
    struct upstream *u = x->upstream;
    struct worker *w = x->worker;
    const struct timeouts *timeouts = &x->view->table->timeouts;
    bool kept = buf_pending(&u->in) > 0;
    size_t used = 0;

    if (kept) {
        buf_add(&u->in, p, n);
        buf_room(&u->in, 16); /* answer_feed() frames in place */
        p = buf_head(&u->in);
        n = buf_pending(&u->in);
    }
    switch (answer_feed(x, p, n, &used)) {
    case ANSWER_MORE:
        if (x->state == EXCHANGE_WAITING) {
            if (keep_rest(u, p, n, used, kept))
                return true; /* the first_byte deadline goes on */
            bad_answer(x);
            return false;
        }
        if (kept)
            buf_fini(&u->in);
        if (buf_pending(&x->client->out) > x->view->table->limits.client_buffer_bytes) {
            /* The client is slow, not the engine: no deadline for it meanwhile. */
            u->paused = true;
            timer_clear(&u->timer);
            return false;
        }
        timer_set(&w->loop.timers, &u->timer, w->loop.now_ns + timeouts->between_bytes);
        return true;
    case ANSWER_DONE:
        if (kept)
            buf_fini(&u->in);
        /* Bytes behind the answer are nobody's: that connection is not used again. */
        finish(x, x->engine_keeps && x->from != HTTP_BODY_CLOSE && used == n && drained &&
                      buf_pending(&u->out) == 0);
        return false;
    case ANSWER_BAD:
        bad_answer(x);
        return false;
    case ANSWER_CLIENT_LOST:
        break;
    }
    client_close(x->client);
    return false;
}

/* --- hold --------------------------------------------------------------------- */

/* When to look at a held exchange next: its deadline, or a heartbeat before that. */
static void arm_hold(struct exchange *x)
{
    bool beat = x->stream && x->beat_ns < x->hold_deadline_ns;

    timer_set(&x->worker->loop.timers, &x->timer, beat ? x->beat_ns : x->hold_deadline_ns);
}

static void on_hold_timer(struct timer *timer)
{
    struct exchange *x = CONTAINER_OF(timer, struct exchange, timer);

    if (x->worker->loop.now_ns >= x->hold_deadline_ns) {
        counter_add(&x->worker->row->hold_expired, 1);
        hold_remove(x);
        refuse(x, GATEWAY_ERROR_HOLD_EXPIRED, "no engine became ready in time");
        return;
    }
    x->beat_ns = x->worker->loop.now_ns + HEARTBEAT_NS;
    arm_hold(x);
    if (answer_heartbeat(x) < 0)
        client_close(x->client);
}

void hold_remove(struct exchange *x)
{
    list_remove(&x->link);
    timer_clear(&x->timer);
    x->view->held[x->held_model]--;
}

void hold_add(struct exchange *x, const struct model_route *m)
{
    struct worker *w = x->worker;
    unsigned share = m->hold_max / w->gateway_workers;

    if (x->hold_deadline_ns == 0) {
        x->hold_deadline_ns = w->loop.now_ns + m->hold_ns;
        x->beat_ns = w->loop.now_ns + HEARTBEAT_NS;
        x->held_ns = w->loop.now_ns;
    }
    if (!m->expected && !(x->version && route_any_ready(x->version))) {
        refuse(x, GATEWAY_ERROR_NO_REPLICA, "no engine is ready for this model");
        return;
    }
    if (m->hold_ns == 0 || x->hold_deadline_ns <= w->loop.now_ns) {
        refuse(x, GATEWAY_ERROR_HOLD_EXPIRED, "no engine is ready for this model");
        return;
    }
    if (x->view->held[m->index] >= (share ? share : 1)) {
        refuse(x, GATEWAY_ERROR_OVERLOADED,
               "too many requests wait for an engine already (hold_max)");
        return;
    }
    x->tried = 0;
    x->held_model = m->index;
    x->view->held[m->index]++;
    if (!x->waited) { /* once, however often it is tried meanwhile */
        x->waited = true;
        counter_add(&w->row->held_total, 1);
    }
    list_append(&w->held, &x->link);
    set_state(x, EXCHANGE_HELD);
    arm_hold(x);
    if (!timer_is_set(&w->hold_retry))
        timer_set(&w->loop.timers, &w->hold_retry, w->loop.now_ns + HOLD_RETRY_MS * 1000000ull);
}

void hold_release(struct worker *w)
{
    struct list now;

    timer_clear(&w->hold_retry);
    if (list_empty(&w->held))
        return;
    now = w->held; /* who must wait again goes to the new end, in the same order */
    now.next->prev = &now;
    now.prev->next = &now;
    list_init(&w->held);
    while (!list_empty(&now)) {
        struct exchange *x = CONTAINER_OF(now.next, struct exchange, link);
        hold_remove(x);
        set_state(x, EXCHANGE_NEW);
        exchange_dispatch(x);
    }
}
