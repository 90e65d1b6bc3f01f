/* script - see script.h. */
#include "script.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"

#define PROMPT "将以下文本翻译为英语，注意只需要输出翻译后的结果，不要额外解释：\n\n"

static char *read_whole(const char *path, struct err *err)
{
    struct buf b = {0};
    size_t n;

    FILE *f = fopen(path, "re");
    if (!f) {
        err_set(err, 0, "cannot open %s: %s", path, strerror(errno));
        return NULL;
    }
    while ((n = fread(buf_room(&b, 65536), 1, 65536, f)) > 0)
        buf_added(&b, n);
    bool bad = ferror(f);
    fclose(f);
    if (bad) {
        err_set(err, 0, "cannot read %s", path);
        buf_fini(&b);
        return NULL;
    }
    return buf_take(&b);
}

static void add_sentence(struct script *s, struct span text)
{
    s->sentences = mem_grow(s->sentences, (s->count + 1) * sizeof(*s->sentences));
    s->sentences[s->count++] = span_dup(text);
}

static int read_sentences(struct script *s, const char *path, struct err *err)
{
    char *text = read_whole(path, err);

    if (!text)
        return -1;
    for (char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        size_t column = strcspn(line, "\t\r\n");
        if (column)
            add_sentence(s, span_of(line, column));
        line += n + (line[n] == '\n');
    }
    free(text);
    return s->count ? 0 : err_set(err, 0, "%s has no sentences", path);
}

static void add_options(struct buf *b, const struct script_options *o, bool stream)
{
    if (o->max_tokens)
        buf_addf(b, ",\"max_tokens\":%u", o->max_tokens);
    if (o->temperature >= 0)
        buf_addf(b, ",\"temperature\":%g", o->temperature);
    buf_add_str(b, stream ? ",\"stream\":true}" : ",\"stream\":false}");
}

static void chat_open(struct buf *b, const struct script_options *o)
{
    buf_add_str(b, "{\"model\":\"");
    buf_add_json(b, span_str(o->model));
    buf_add_str(b, "\",\"messages\":[{\"role\":\"user\",\"content\":\"");
}

static void sentence_body(struct buf *b, const struct script_options *o, const char *sentence,
                          bool stream)
{
    chat_open(b, o);
    buf_add_json(b, SPAN_LIT(PROMPT));
    buf_add_json(b, span_str(sentence));
    buf_add_str(b, "\"}]");
    add_options(b, o, stream);
}

/* Words up to exactly o->body_bytes, if the members alone leave room for any. */
static void fixed_body(struct buf *b, const struct script_options *o, bool stream)
{
    static const char words[] = "The quick brown fox jumps over the lazy dog and runs. ";
    struct buf tail = {0};

    chat_open(b, o);
    buf_add_str(&tail, "\"}]");
    add_options(&tail, o, stream);
    size_t used = buf_pending(b) + buf_pending(&tail);
    for (size_t i = 0; used + i < o->body_bytes; i++)
        buf_add_char(b, words[i % (sizeof(words) - 1)]);
    buf_add_span(b, buf_span(&tail));
    buf_fini(&tail);
}

static void template_body(struct buf *b, const struct script_options *o, const char *template,
                          const char *sentence, bool stream)
{
    for (const char *p = template; *p;) {
        if (strncmp(p, "@model@", 7) == 0) {
            buf_add_json(b, span_str(o->model));
            p += 7;
        } else if (strncmp(p, "@stream@", 8) == 0) {
            buf_add_str(b, stream ? "true" : "false");
            p += 8;
        } else if (strncmp(p, "@sentence@", 10) == 0) {
            buf_add_json(b, span_str(sentence));
            p += 10;
        } else {
            buf_add_char(b, *p++);
        }
    }
}

static struct request make_request(const struct script_options *o, struct span body, bool stream,
                                   size_t sentence)
{
    struct buf b = {0};

    buf_addf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n", o->path,
             o->host);
    buf_addf(&b, "Content-Length: %zu\r\n%s%s\r\n", body.n, o->close ? "Connection: close\r\n" : "",
             o->headers);
    buf_add_span(&b, body);
    size_t n = buf_pending(&b);
    return (struct request){.bytes = buf_take(&b), .n = n, .stream = stream, .sentence = sentence};
}

static struct request make(const struct script *s, const struct script_options *o,
                           const char *template, size_t i, bool stream)
{
    struct buf body = {0};

    if (template)
        template_body(&body, o, template, s->sentences[i], stream);
    else if (o->sentences)
        sentence_body(&body, o, s->sentences[i], stream);
    else
        fixed_body(&body, o, stream);
    struct request r = make_request(o, buf_span(&body), stream, i);
    buf_fini(&body);
    return r;
}

int script_make(struct script *s, const struct script_options *o, struct err *err)
{
    char *template = NULL;

    *s = (struct script){0};
    if (o->template && !(template = read_whole(o->template, err)))
        return -1;
    if (o->sentences && read_sentences(s, o->sentences, err) < 0) {
        free(template);
        return -1;
    }
    if (s->count == 0)
        add_sentence(s, SPAN_LIT(""));

    s->plain = mem_zero(s->count * sizeof(*s->plain));
    s->streamed = mem_zero(s->count * sizeof(*s->streamed));
    for (size_t i = 0; i < s->count; i++) {
        s->plain[i] = make(s, o, template, i, false);
        s->streamed[i] = make(s, o, template, i, true);
    }
    free(template);
    return 0;
}

void script_fini(struct script *s)
{
    for (size_t i = 0; i < s->count; i++) {
        free(s->plain[i].bytes);
        free(s->streamed[i].bytes);
        free(s->sentences[i]);
    }
    free(s->plain);
    free(s->streamed);
    free(s->sentences);
    *s = (struct script){0};
}
