/*
 * gateway/answer - the engine's bytes on their way to the client.
 *
 * The head is parsed and written anew; the body is framed anew in the read
 * buffer itself, so that one read becomes one write:
 *
 *    read:   [..5\r\nhello\r\n7\r\n, world\r\n....]
 *    write:    [c\r\nhello, world\r\n]
 *
 * Nothing is kept back: what one read brought goes out with one write.
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "gateway/internal.h"

/* Fields of the engine that are not passed on, or are written anew. */
static bool ours(enum http_field_id id)
{
    return id == HTTP_FIELD_CONTENT_LENGTH || id == HTTP_FIELD_X_SEGUE_VERSION;
}

/* Who may read the answer is said once, by us. */
static bool is_cors(struct span name)
{
    struct span prefix = SPAN_LIT("access-control-");

    return name.n >= prefix.n && span_eq_nocase(span_of(name.p, prefix.n), prefix);
}

static bool is_sse(const struct http_response_head *head)
{
    const struct http_field *f =
        http_field_find(head->fields, head->nfields, HTTP_FIELD_CONTENT_TYPE);
    struct span sse = SPAN_LIT("text/event-stream");

    return f && f->value.n >= sse.n && span_eq_nocase(span_of(f->value.p, sse.n), sse);
}

/* How the body goes on to this client. */
static enum http_framing framing_to(const struct client *c, enum http_framing from)
{
    if (from == HTTP_BODY_NONE || from == HTTP_BODY_LENGTH)
        return from;
    return c->minor >= 1 ? HTTP_BODY_CHUNKED : HTTP_BODY_CLOSE;
}

static void write_head(struct exchange *x, const struct http_response_head *head)
{
    struct client *c = x->client;
    struct buf *b = &x->worker->lines;
    bool has_id = false;

    buf_clear(b);
    buf_add(b, "HTTP/1.1 ", 9);
    buf_add_u64(b, (uint64_t)head->status);
    buf_add_char(b, ' ');
    buf_add_span(b, head->reason);
    buf_add(b, "\r\n", 2);
    if (c->cors)
        buf_add_str(b, c->cors);
    for (size_t i = 0; i < head->nfields; i++) {
        const struct http_field *f = &head->fields[i];
        if (f->hop || ours(f->id) || (c->cors && is_cors(f->name)))
            continue;
        has_id |= f->id == HTTP_FIELD_X_REQUEST_ID;
        buf_add_span(b, f->name);
        buf_add(b, ": ", 2);
        buf_add_span(b, f->value);
        buf_add(b, "\r\n", 2);
    }
    buf_add_str(b, "X-Segue-Version: ");
    buf_add_str(b, x->version->tag);
    if (!has_id) {
        buf_add_str(b, "\r\nX-Request-Id: ");
        buf_add_str(b, x->request_id);
    }
    if (x->to == HTTP_BODY_LENGTH) {
        buf_add_str(b, "\r\nContent-Length: ");
        buf_add_u64(b, head->content_length);
    } else if (x->to == HTTP_BODY_CHUNKED) {
        buf_add_str(b, "\r\nTransfer-Encoding: chunked");
    }
    /* What the gateway itself has taken, until the head is on its way. */
    x->overhead_ns = x->sent_ns - x->began_ns + clock_ns() - x->worker->loop.now_ns;
    buf_add_str(b, "\r\nX-Segue-Overhead-Us: ");
    buf_add_u64(b, x->overhead_ns / 1000);
    if (!c->keep_alive)
        buf_add_str(b, "\r\nConnection: close");
    else if (c->minor == 0)
        buf_add_str(b, "\r\nConnection: keep-alive");
    buf_add(b, "\r\n\r\n", 4);
}

/* Counts events and remembers the end, so that a stream without its [DONE] is noticed. */
static void watch_sse(struct exchange *x, const char *p, size_t n)
{
    uint64_t events = 0;
    char before = x->last[sizeof(x->last) - 1];

    for (const char *at = p; (at = memchr(at, '\n', n - (size_t)(at - p))) != NULL; at++)
        events += (at == p ? before : at[-1]) == '\n';
    counter_add(&x->pool->row->tokens, events);
    x->events += events;
    if (n >= sizeof(x->last)) {
        memcpy(x->last, p + n - sizeof(x->last), sizeof(x->last));
    } else {
        memmove(x->last, x->last + n, sizeof(x->last) - n);
        memcpy(x->last + sizeof(x->last) - n, p, n);
    }
}

bool answer_sse_done(const struct exchange *x)
{
    static const char done[] = "data: [DONE]";
    size_t end = sizeof(x->last);

    while (end && (x->last[end - 1] == '\n' || x->last[end - 1] == '\r'))
        end--;
    return end >= sizeof(done) - 1 &&
           memcmp(x->last + end - (sizeof(done) - 1), done, sizeof(done) - 1) == 0;
}

/* Puts our frame around n bytes of data at p: one piece. `last`: the body ends here. */
static struct iovec frame(struct exchange *x, char *p, size_t n, bool last)
{
    if (x->to != HTTP_BODY_CHUNKED)
        return (struct iovec){p, n};
    size_t line = 0, tail = 0;
    if (n) {
        line = chunk_size_line(p, n);
        memcpy(p + n, "\r\n", 2);
        tail = 2;
    }
    if (last) {
        memcpy(p + n + tail, "0\r\n\r\n", 5);
        tail += 5;
    }
    return (struct iovec){p - line, line + n + tail};
}

/* Unframes what the engine sent; *data_len bytes of data are then at p. */
static enum answer_progress unframe(struct exchange *x, char *p, size_t n, size_t *data_len,
                                    size_t *used)
{
    bool done = false;

    switch (x->from) {
    case HTTP_BODY_NONE:
        *data_len = *used = 0;
        return ANSWER_DONE;
    case HTTP_BODY_LENGTH:
        *data_len = *used = n < x->left ? n : (size_t)x->left;
        x->left -= *used;
        return x->left ? ANSWER_MORE : ANSWER_DONE;
    case HTTP_BODY_CHUNKED:
        if (chunk_decode(&x->chunks, p, n, data_len, used, &done) != HTTP_FAULT_NONE)
            return ANSWER_BAD;
        return done ? ANSWER_DONE : ANSWER_MORE;
    case HTTP_BODY_CLOSE:
        break;
    }
    *data_len = *used = n;
    return ANSWER_MORE;
}

/* Skips 1xx answers, parses and writes the head. *used: bytes of p that are done with. */
static enum answer_progress feed_head(struct exchange *x, char *p, size_t n, size_t *used)
{
    struct http_response_head head;

    *used = 0;
    for (;;) {
        size_t scanned = 0;
        size_t len = http_head_end(p + *used, n - *used, &scanned);
        if (len == 0)
            return ANSWER_MORE;
        if (len > ENGINE_HEAD_MAX ||
            http_parse_response(&head, p + *used, len, false) != HTTP_FAULT_NONE)
            return ANSWER_BAD;
        *used += len;
        if (head.status >= 200)
            break;
        /* Ours to answer: we never ask an engine for 100, and a client was told before. */
        if (++x->interim > INTERIM_MAX)
            return ANSWER_BAD;
    }
    x->status = head.status;
    x->from = head.framing;
    x->left = head.content_length;
    x->engine_keeps = head.keep_alive;
    x->sse = is_sse(&head);
    chunk_decoder_init(&x->chunks);
    if (x->committed) {
        /* The client has our head already: only the stream it was promised can follow. */
        return x->status == 200 && x->sse ? ANSWER_DONE : ANSWER_BAD;
    }
    x->to = framing_to(x->client, x->from);
    if (x->to == HTTP_BODY_CLOSE) {
        x->client->keep_alive = false;
        x->client->close_delimited = true;
    }
    if (x->worker->draining)
        x->client->keep_alive = false;
    write_head(x, &head);
    return ANSWER_DONE;
}

enum answer_progress answer_feed(struct exchange *x, char *p, size_t n, size_t *used)
{
    struct iovec pieces[2];
    int npieces = 0;
    size_t head_used = 0, body_used = 0, data_len = 0;
    enum answer_progress progress;

    if (x->state == EXCHANGE_WAITING) {
        progress = feed_head(x, p, n, &head_used);
        *used = head_used;
        if (progress != ANSWER_DONE)
            return progress;
        exchange_relaying(x);
        if (!x->committed) /* otherwise ours went ahead of it */
            pieces[npieces++] =
                (struct iovec){buf_head(&x->worker->lines), buf_pending(&x->worker->lines)};
        p += head_used;
        n -= head_used;
    }
    progress = unframe(x, p, n, &data_len, &body_used);
    *used = head_used + body_used;
    if (progress == ANSWER_BAD)
        data_len = 0; /* the head is still owed */
    if (data_len && x->first_ns == 0)
        x->first_ns = x->worker->loop.now_ns;
    x->bytes += data_len;
    if (x->sse && data_len)
        watch_sse(x, p, data_len);
    if (data_len || progress == ANSWER_DONE)
        pieces[npieces++] = frame(x, p, data_len, progress == ANSWER_DONE);
    if (npieces && client_send(x->client, pieces, npieces) < 0)
        return ANSWER_CLIENT_LOST;
    return progress;
}

int answer_end(struct exchange *x)
{
    struct iovec last = {"0\r\n\r\n", 5};

    return x->to == HTTP_BODY_CHUNKED ? client_send(x->client, &last, 1) : 0;
}

/* Whether the relayed bytes end within an event, where more lines would belong to it. */
static bool in_event(const struct exchange *x)
{
    const char *end = x->last + sizeof(x->last);

    if (end[-1] == '\0') /* there are none */
        return false;
    return end[-1] != '\n' || (end[-2] != '\n' && (end[-2] != '\r' || end[-3] != '\n'));
}

void answer_error_frame(struct exchange *x, const char *code, const char *message)
{
    static const char room[CHUNK_HEAD_ROOM];
    struct buf b = {0};

    if (x->to != HTTP_BODY_CHUNKED && x->to != HTTP_BODY_CLOSE)
        return;                      /* no byte more than was announced */
    buf_add(&b, room, sizeof(room)); /* for frame() */
    if (in_event(x))
        buf_add_str(&b, "\n\n");
    buf_add_str(&b, "data: {\"error\":{\"message\":\"");
    buf_add_json(&b, span_str(message));
    buf_addf(&b, "\",\"type\":\"server_error\",\"param\":null,\"code\":\"%s\"}}\n\n", code);
    buf_room(&b, 16); /* for frame() too */
    struct iovec piece =
        frame(x, buf_head(&b) + sizeof(room), buf_pending(&b) - sizeof(room), false);
    if (client_send(x->client, &piece, 1) < 0) /* client_cut() comes next anyway */
        log_debug("request %s: its client left before it was told", x->request_id);
    buf_fini(&b);
}

int answer_heartbeat(struct exchange *x)
{
    static const char comment[] = ": waiting\n\n";
    char room[64];
    struct buf *b = &x->worker->lines;
    struct iovec pieces[2];
    int n = 0;

    if (!x->committed) {
        x->committed = true;
        x->sse = true;
        x->from = HTTP_BODY_CHUNKED;
        x->to = framing_to(x->client, HTTP_BODY_CHUNKED);
        if (x->to == HTTP_BODY_CLOSE) {
            x->client->keep_alive = false;
            x->client->close_delimited = true;
        }
        buf_clear(b);
        buf_addf(b,
                 "HTTP/1.1 200 OK\r\n%sContent-Type: text/event-stream\r\n"
                 "Cache-Control: no-cache\r\nX-Request-Id: %s\r\n%s%s\r\n",
                 worker_date(x->worker), x->request_id,
                 x->to == HTTP_BODY_CHUNKED ? "Transfer-Encoding: chunked\r\n" : "",
                 x->client->keep_alive ? "" : "Connection: close\r\n");
        pieces[n++] = (struct iovec){buf_head(b), buf_pending(b)};
    }
    memcpy(room + CHUNK_HEAD_ROOM, comment, sizeof(comment) - 1);
    pieces[n++] = frame(x, room + CHUNK_HEAD_ROOM, sizeof(comment) - 1, false);
    return client_send(x->client, pieces, n);
}
