/* sse - see sse.h. */
#include "cli/sse.h"

#include <stdio.h>

void sse_fini(struct sse *s)
{
    buf_fini(&s->line);
    buf_fini(&s->data);
}

static void dispatch(struct sse *s, sse_cb cb, void *arg)
{
    if (s->has_data)
        cb(s->event, buf_span(&s->data), arg);
    buf_clear(&s->data);
    s->event[0] = '\0';
    s->has_data = false;
}

static void take_line(struct sse *s, sse_cb cb, void *arg)
{
    struct span line = buf_span(&s->line);
    size_t colon = span_index(line, ':');
    struct span name = span_of(line.p, colon), value = span_of(NULL, 0);

    if (line.n == 0) {
        dispatch(s, cb, arg);
        return;
    }
    if (colon < line.n)
        value = span_of(line.p + colon + 1, line.n - colon - 1);
    if (value.n && value.p[0] == ' ')
        value = span_of(value.p + 1, value.n - 1);
    if (span_eq_str(name, "data")) {
        if (s->has_data)
            buf_add_char(&s->data, '\n');
        buf_add_span(&s->data, value);
        s->has_data = true;
    } else if (span_eq_str(name, "event")) {
        snprintf(s->event, sizeof(s->event), SPAN_FMT, SPAN_ARG(value));
    }
    buf_clear(&s->line);
}

bool sse_feed(struct sse *s, struct span bytes, sse_cb cb, void *arg)
{
    for (size_t i = 0; i < bytes.n; i++) {
        char c = bytes.p[i];
        bool second = c == '\n' && s->after_cr;
        s->after_cr = c == '\r';
        if (second)
            continue;
        if (c == '\n' || c == '\r')
            take_line(s, cb, arg);
        else
            buf_add_char(&s->line, c);
        if (buf_pending(&s->line) + buf_pending(&s->data) > SSE_EVENT_MAX)
            return false;
    }
    return true;
}
