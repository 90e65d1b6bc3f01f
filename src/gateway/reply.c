/*
 * gateway/reply - answers that the gateway itself makes, and their OpenAI-shaped errors.
 */
#include <stdarg.h>
#include <stdio.h>

#include "gateway/access.h"
#include "gateway/internal.h"

void client_reply(struct client *c, int status, const char *content_type, const char *headers,
                  struct span body)
{
    struct buf *b = &c->worker->lines;
    struct iovec pieces[2] = {{0}, {(char *)body.p, c->head_only ? 0 : body.n}};

    if (c->state == CLIENT_CLOSED)
        return;
    if (c->note)
        access_answer(c, status, pieces[1].iov_len);
    if (c->worker->draining)
        c->keep_alive = false;
    buf_clear(b);
    buf_addf(b, "HTTP/1.1 %d %s\r\n%s", status, http_reason(status), worker_date(c->worker));
    if (content_type)
        buf_addf(b, "Content-Type: %s\r\n", content_type);
    if (c->cors)
        buf_add_str(b, c->cors);
    if (status != 304 && status != 204) /* they have no body; 304's length would be the file's */
        buf_addf(b, "Content-Length: %zu\r\n", body.n);
    buf_addf(b, "%s%s\r\n", headers ? headers : "",
             !c->keep_alive  ? "Connection: close\r\n"
             : c->minor == 0 ? "Connection: keep-alive\r\n"
                             : "");
    pieces[0] = (struct iovec){buf_head(b), buf_pending(b)};
    if (client_send(c, pieces, 2) < 0)
        client_close(c);
    else
        client_answered(c);
}

static void reply_error(struct client *c, enum gateway_error e, const char *headers,
                        const char *fmt, va_list args)
{
    const struct gateway_error_row *row = gateway_error_row(e);
    struct buf body = {0};
    char text[1024];

    vsnprintf(text, sizeof(text), fmt, args);
    buf_add_str(&body, "{\"error\":{\"message\":\"");
    buf_add_json(&body, span_str(text));
    buf_addf(&body, "\",\"type\":\"%s\",\"param\":null,\"code\":\"%s\"}}\n", row->type, row->code);
    counter_add(row->status >= 500 ? &c->worker->row->errors_5xx : &c->worker->row->errors_4xx, 1);
    if (c->worker->log.fd >= 0 && c->state != CLIENT_CLOSED)
        access_error(c, row->code);
    client_reply(c, row->status, "application/json", headers, buf_span(&body));
    buf_fini(&body);
}

void client_error(struct client *c, enum gateway_error e, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    reply_error(c, e, gateway_error_row(e)->status == 503 ? "Retry-After: 1\r\n" : NULL, fmt, args);
    va_end(args);
}

void client_error_headers(struct client *c, enum gateway_error e, const char *headers,
                          const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    reply_error(c, e, headers, fmt, args);
    va_end(args);
}
