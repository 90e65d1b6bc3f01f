/*
 * Answer heads: as fuzz_request, with and without HEAD as the request's method.
 */
#include "heads.h"

static void accepted(const struct http_response_head *head, const char *p, size_t n, bool head_only)
{
    static struct http_response_head again;
    struct buf b = {0};

    inside(head->reason, p, n);
    check_fields(head->fields, head->nfields, p, n);
    ALWAYS(head->status >= 100 && head->status <= 599 && head->status != 101);
    if (head_only || head->status < 200 || head->status == 204 || head->status == 304)
        ALWAYS(head->framing == HTTP_BODY_NONE);
    else
        ALWAYS(head->framing != HTTP_BODY_NONE);
    if (head->framing == HTTP_BODY_CLOSE)
        ALWAYS(!head->keep_alive);

    buf_addf(&b, "HTTP/1.%d %d " SPAN_FMT "\r\n", head->minor, head->status,
             SPAN_ARG(head->reason));
    add_fields(&b, head->fields, head->nfields);
    ALWAYS(head_end(b.data, b.len) == b.len);
    ALWAYS(http_parse_response(&again, b.data, b.len, head_only) == HTTP_FAULT_NONE);
    ALWAYS(again.status == head->status && again.minor == head->minor);
    ALWAYS(span_eq(again.reason, head->reason) && again.framing == head->framing);
    ALWAYS(again.content_length == head->content_length && again.keep_alive == head->keep_alive);
    ALWAYS(again.nfields == head->nfields);
    same_fields(again.fields, head->fields, head->nfields);
    buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct http_response_head head;
    const char *p = (const char *)data;
    size_t end = head_end(p, n);

    if (http_parse_response(&head, p, n, false) == HTTP_FAULT_NONE)
        ALWAYS(end == n);
    for (int head_only = 0; end && head_only <= 1; head_only++)
        if (http_parse_response(&head, p, end, head_only) == HTTP_FAULT_NONE)
            accepted(&head, p, end, head_only);
    return 0;
}
