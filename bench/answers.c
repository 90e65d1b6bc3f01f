/* answers - see answers.h. */
#include "answers.h"

static void add_words(struct buf *b, size_t n)
{
    static const char words[] = "Hello, world. This answer is always the same. ";
    for (size_t i = 0; i < n; i++)
        buf_add_char(b, words[i % (sizeof(words) - 1)]);
}

void answers_whole(struct buf *out, const char *status, const char *type, struct span body)
{
    buf_addf(out, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", status, type,
             body.n);
    buf_add_span(out, body);
}

static void make_plain(struct buf *out, const struct answer_options *o)
{
    struct buf head = {0}, tail = {0};

    buf_add_str(&head,
                "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1760000000,"
                "\"model\":\"");
    buf_add_json(&head, span_str(o->name));
    buf_add_str(&head, "\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                       "\"content\":\"");
    buf_add_str(&tail, "\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,"
                       "\"completion_tokens\":20,\"total_tokens\":30}}");
    size_t used = buf_pending(&head) + buf_pending(&tail);
    add_words(&head, o->bytes > used + 14 ? o->bytes - used : 14);
    buf_add_span(&head, buf_span(&tail));
    answers_whole(out, "200 OK", "application/json", buf_span(&head));
    buf_fini(&head);
    buf_fini(&tail);
}

static void add_event(struct buf *out, const struct answer_options *o, const char *delta,
                      const char *finish)
{
    buf_add_str(out, "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
                     "\"created\":1760000000,\"model\":\"");
    buf_add_json(out, span_str(o->name));
    buf_addf(out, "\",\"choices\":[{\"index\":0,\"delta\":%s,\"finish_reason\":%s}]}\n\n", delta,
             finish);
}

static void add_chunk(struct buf *out, struct buf *data)
{
    buf_addf(out, "%zx\r\n", buf_pending(data));
    buf_add_span(out, buf_span(data));
    buf_add_str(out, "\r\n");
    buf_fini(data);
}

static void make_stream(struct answers *a, const struct answer_options *o)
{
    struct buf data = {0};

    buf_add_str(&a->stream_head, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                 "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n");
    add_event(&data, o, "{\"role\":\"assistant\",\"content\":\"Hello\"}", "null");
    add_chunk(&a->stream_head, &data);
    add_event(&data, o, "{\"content\":\" world\"}", "null");
    add_chunk(&a->token, &data);
    add_event(&data, o, "{}", "\"stop\"");
    buf_add_str(&data, "data: [DONE]\n\n");
    add_chunk(&a->stream_end, &data);
    buf_add_str(&a->stream_end, "0\r\n\r\n");
}

void answers_make(struct answers *a, const struct answer_options *o)
{
    struct buf body = {0};

    make_plain(&a->plain, o);
    make_stream(a, o);
    buf_add_str(&body, "{\"object\":\"list\",\"data\":[{\"id\":\"");
    buf_add_json(&body, span_str(o->name));
    buf_add_str(&body, "\",\"object\":\"model\",\"created\":1760000000,\"owned_by\":\"segue\"}]}");
    answers_whole(&a->models, "200 OK", "application/json", buf_span(&body));
    buf_fini(&body);
    answers_whole(&a->health, "200 OK", "application/json", SPAN_LIT("{\"status\":\"ok\"}"));
    answers_whole(&a->not_found, "404 Not Found", "application/json",
                  SPAN_LIT("{\"error\":{\"message\":\"no such path\",\"type\":\"not_found\"}}"));
    answers_whole(&a->bad, "400 Bad Request\r\nConnection: close", "application/json",
                  SPAN_LIT("{\"error\":{\"message\":\"this request is not understood\"}}"));
}

void answers_fini(struct answers *a)
{
    struct buf *all[] = {&a->plain,  &a->stream_head, &a->token,     &a->stream_end,
                         &a->models, &a->health,      &a->not_found, &a->bad};
    for (size_t i = 0; i < COUNT_OF(all); i++)
        buf_fini(all[i]);
}
