/*
 * gateway/request - what an engine is sent.
 *
 * Nothing is passed on as it came but the target, the end-to-end fields and
 * the bytes of the body around the model's name; framing is ours.  What the
 * client says about who it is (X-Real-IP, X-Request-Id, ...) is replaced, or
 * extended in the case of X-Forwarded-For.
 */
#include "gateway/internal.h"

/* Fields that are written anew, or are not for the engine. */
static bool ours(enum http_field_id id)
{
    switch (id) {
    case HTTP_FIELD_HOST:
    case HTTP_FIELD_CONTENT_LENGTH:
    case HTTP_FIELD_EXPECT:
    case HTTP_FIELD_X_REQUEST_ID:
    case HTTP_FIELD_X_FORWARDED_FOR:
    case HTTP_FIELD_X_FORWARDED_PROTO:
    case HTTP_FIELD_X_REAL_IP:
    case HTTP_FIELD_X_SEGUE_VERSION:
        return true;
    default:
        return false;
    }
}

static void add_line(struct buf *b, struct span name, struct span value)
{
    buf_add_span(b, name);
    buf_add(b, ": ", 2);
    buf_add_span(b, value);
    buf_add(b, "\r\n", 2);
}

bool request_id_ok(struct span s)
{
    if (s.n == 0 || s.n > REQUEST_ID_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] >= 0x7f || s.p[i] == '"' || s.p[i] == '\\')
            return false;
    return true;
}

static void set_id(struct exchange *x, const struct http_request_head *head)
{
    static const char hex[] = "0123456789abcdef";
    const struct http_field *f =
        http_field_find(head->fields, head->nfields, HTTP_FIELD_X_REQUEST_ID);

    if (f && request_id_ok(f->value)) {
        memcpy(x->request_id, f->value.p, f->value.n);
        x->request_id[f->value.n] = '\0';
        return;
    }
    uint64_t bits[2] = {worker_random(x->worker), worker_random(x->worker)};
    for (int i = 0; i < 32; i++)
        x->request_id[i] = hex[bits[i / 16] >> (i % 16 * 4) & 15];
    x->request_id[32] = '\0';
}

static void add_forwarded(struct buf *b, const struct http_request_head *head, struct span ip,
                          bool tls)
{
    buf_add_str(b, "X-Forwarded-For: ");
    for (size_t i = 0; i < head->nfields; i++) {
        const struct http_field *f = &head->fields[i];
        if (f->id == HTTP_FIELD_X_FORWARDED_FOR && f->value.n) {
            buf_add_span(b, f->value);
            buf_add(b, ", ", 2);
        }
    }
    buf_add_span(b, ip);
    buf_add_str(b, "\r\nX-Real-IP: ");
    buf_add_span(b, ip);
    buf_add_str(b, tls ? "\r\nX-Forwarded-Proto: https\r\n" : "\r\nX-Forwarded-Proto: http\r\n");
}

void request_store(struct exchange *x, const struct http_request_head *head, struct span body,
                   const struct json_member *model, bool empty_object)
{
    struct buf *b = &x->request;

    set_id(x, head);
    buf_room(b, head->nfields * 64 + head->target.n + body.n + 512);
    buf_add_span(b, head->path);
    if (head->query.n) {
        buf_add_char(b, '?');
        buf_add_span(b, head->query);
    }
    buf_add_str(b, " HTTP/1.1\r\n");
    add_line(b, SPAN_LIT("Host"), head->host.n ? head->host : SPAN_LIT("segue"));
    for (size_t i = 0; i < head->nfields; i++)
        if (!head->fields[i].hop && !ours(head->fields[i].id) &&
            !(x->view->table->keyring && admit_is_key(&head->fields[i])))
            add_line(b, head->fields[i].name, head->fields[i].value);
    add_forwarded(b, head, span_str(x->client->ip), x->client->ssl != NULL);
    add_line(b, SPAN_LIT("X-Request-Id"), span_str(x->request_id));
    x->lines_len = buf_pending(b);

    size_t cut, resume;
    if (model->kind != JSON_ABSENT) {
        cut = (size_t)(model->value.p - body.p);
        resume = cut + model->value.n;
        x->insert = x->insert_after = "";
    } else {
        cut = resume = span_index(body, '{') + 1;
        x->insert = "\"model\":";
        x->insert_after = empty_object ? "" : ",";
    }
    buf_add(b, body.p, cut);
    buf_add(b, body.p + resume, body.n - resume);
    x->before_len = cut;
    x->after_len = body.n - resume;
}

static struct iovec piece(const char *p, size_t n)
{
    return (struct iovec){(char *)p, n};
}

int request_send(struct exchange *x)
{
    struct span value = x->replica->serve_as;
    size_t insert = strlen(x->insert), after = strlen(x->insert_after);
    struct buf *lines = &x->worker->lines;
    const char *p = buf_head(&x->request);

    buf_clear(lines);
    buf_add_str(lines, "Content-Length: ");
    buf_add_u64(lines, x->before_len + insert + value.n + after + x->after_len);
    buf_add(lines, "\r\n\r\n", 4);
    struct iovec pieces[] = {
        piece("POST ", 5),
        piece(x->replica->prefix, strlen(x->replica->prefix)),
        piece(p, x->lines_len),
        piece(buf_head(lines), buf_pending(lines)),
        piece(p + x->lines_len, x->before_len),
        piece(x->insert, insert),
        piece(value.p, value.n),
        piece(x->insert_after, after),
        piece(p + x->lines_len + x->before_len, x->after_len),
    };
    return upstream_send(x->upstream, pieces, COUNT_OF(pieces));
}
