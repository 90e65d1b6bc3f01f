/*
 * Request heads: nothing is read outside of the input, what is given out lies
 * inside it, and an accepted head that is written anew from its parts is
 * understood in the same way.
 */
#include "heads.h"

static void accepted(const struct http_request_head *head, const char *p, size_t n)
{
    static struct http_request_head again;
    struct buf b = {0};

    inside(head->method_text, p, n);
    inside(head->target, p, n);
    inside(head->path, p, n);
    inside(head->query, p, n);
    inside(head->host, p, n);
    check_fields(head->fields, head->nfields, p, n);
    ALWAYS(head->path.n > 0 && (head->minor == 0 || head->minor == 1));
    ALWAYS(head->host.n > 0 || head->minor == 0);

    buf_add_span(&b, head->method_text);
    buf_add_char(&b, ' ');
    buf_add_span(&b, head->target);
    buf_addf(&b, " HTTP/1.%d\r\n", head->minor);
    add_fields(&b, head->fields, head->nfields);
    ALWAYS(head_end(b.data, b.len) == b.len);
    ALWAYS(http_parse_request(&again, b.data, b.len) == HTTP_FAULT_NONE);
    ALWAYS(again.method == head->method && again.minor == head->minor);
    ALWAYS(span_eq(again.path, head->path) && span_eq(again.query, head->query));
    ALWAYS(span_eq(again.host, head->host) && again.framing == head->framing);
    ALWAYS(again.content_length == head->content_length && again.keep_alive == head->keep_alive);
    ALWAYS(again.expect_continue == head->expect_continue && again.nfields == head->nfields);
    same_fields(again.fields, head->fields, head->nfields);
    buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct http_request_head head;
    const char *p = (const char *)data;
    size_t end = head_end(p, n);

    /* Not only what head_end() found: any bytes must be survived. */
    if (http_parse_request(&head, p, n) == HTTP_FAULT_NONE)
        ALWAYS(end == n);
    if (end && http_parse_request(&head, p, end) == HTTP_FAULT_NONE)
        accepted(&head, p, end);
    return 0;
}
