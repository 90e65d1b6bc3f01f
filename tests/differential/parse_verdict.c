/*
 * parse_verdict - what our request parser says about bytes, for parser.mjs.
 *
 * Standard input: cases, each a 32-bit little-endian length and that many bytes
 * (one connection's worth).  Standard output: one JSON object on a line for the
 * first request of each, bytes above 0x7f as their Latin-1 characters.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "http/chunk.h"
#include "http/parse.h"

enum { CASE_MAX = 1 << 20 };

static void add_text(struct buf *out, const char *name, struct span s)
{
    buf_addf(out, ",\"%s\":\"", name);
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
            buf_addf(out, "\\u%04x", c);
        else
            buf_add_char(out, (char)c);
    }
    buf_add_char(out, '"');
}

static void refuse(struct buf *out, enum http_fault fault)
{
    static const char *const names[] = {
#define X(id, status, text) [HTTP_FAULT_##id] = #id,
        HTTP_FAULTS(X)
#undef X
    };
    buf_addf(out, "{\"verdict\":\"refused\",\"why\":\"%s\"}", names[fault]);
}

/* Finds the body behind the head; false when it is not whole or refused. */
static bool body(struct buf *out, const struct http_request_head *head, char *p, size_t n,
                 struct span *body)
{
    struct chunk_decoder d;
    size_t len = 0, used = 0;
    bool done = true;

    if (head->framing == HTTP_BODY_LENGTH) {
        done = n >= head->content_length;
        len = done ? (size_t)head->content_length : n;
    } else if (head->framing == HTTP_BODY_CHUNKED) {
        chunk_decoder_init(&d);
        enum http_fault fault = chunk_decode(&d, p, n, &len, &used, &done);
        if (fault != HTTP_FAULT_NONE) {
            refuse(out, fault);
            return false;
        }
    }
    if (!done)
        buf_add_str(out, "{\"verdict\":\"incomplete\",\"why\":\"body\"}");
    *body = span_of(p, len);
    return done;
}

static void verdict(struct buf *out, char *p, size_t n)
{
    static struct http_request_head head;
    static const char *const framings[] = {"none", "length", "chunked", "close"};
    struct span content;
    size_t scanned = 0, skip = http_skip_empty_lines(p, n);

    p += skip;
    n -= skip;
    size_t end = http_head_end(p, n, &scanned);
    if (end == 0) {
        buf_add_str(out, "{\"verdict\":\"incomplete\",\"why\":\"head\"}");
        return;
    }
    enum http_fault fault = http_parse_request(&head, p, end);
    if (fault != HTTP_FAULT_NONE) {
        refuse(out, fault);
        return;
    }
    if (!body(out, &head, p + end, n - end, &content))
        return;
    buf_addf(out, "{\"verdict\":\"accepted\",\"minor\":%d,\"framing\":\"%s\",\"keep\":%s",
             head.minor, framings[head.framing], head.keep_alive ? "true" : "false");
    add_text(out, "method", head.method_text);
    add_text(out, "target", head.target);
    add_text(out, "path", head.path);
    add_text(out, "query", head.query);
    add_text(out, "body", content);
    buf_add_str(out, ",\"fields\":[0");
    for (size_t i = 0; i < head.nfields; i++) {
        buf_add_str(out, ",{\"id\":0");
        add_text(out, "name", head.fields[i].name);
        add_text(out, "value", head.fields[i].value);
        buf_add_char(out, '}');
    }
    buf_add_str(out, "]}");
}

int main(void)
{
    unsigned char prefix[4];
    struct buf out = {0};

    while (fread(prefix, sizeof(prefix), 1, stdin) == 1) {
        size_t n =
            prefix[0] | (size_t)prefix[1] << 8 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 24;
        if (n > CASE_MAX) {
            fprintf(stderr, "parse_verdict: a case of %zu bytes; the limit is %d\n", n, CASE_MAX);
            return 1;
        }
        char *p = mem_alloc(n);
        if (n && fread(p, n, 1, stdin) != 1) {
            fprintf(stderr, "parse_verdict: standard input ended inside a case\n");
            free(p);
            return 1;
        }
        verdict(&out, p, n);
        buf_add_char(&out, '\n');
        free(p);
        fwrite(out.data, out.len, 1, stdout);
        buf_clear(&out);
    }
    buf_fini(&out);
    return fflush(stdout) == 0 ? 0 : 1;
}
