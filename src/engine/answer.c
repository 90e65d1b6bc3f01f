/* answer - see answer.h. */
#include "engine/answer.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"

void answer_begin(struct answer *a, const struct request *r, const char *model)
{
    uint64_t random[2] = {0};

    a->chat = r->kind == REQUEST_CHAT;
    a->usage = r->stream && r->stream_usage;
    a->created = (int64_t)time(NULL);
    a->model = model;
    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        random[0] = clock_ns();
    snprintf(a->id, sizeof(a->id), "%s-%016" PRIx64 "%08" PRIx32, a->chat ? "chatcmpl" : "cmpl",
             random[0], (uint32_t)random[1]);
}

static void add_string(struct buf *out, struct span s)
{
    buf_add_char(out, '"');
    buf_add_json(out, s);
    buf_add_char(out, '"');
}

/* {"id":...,"choices":[ */
static void add_head(const struct answer *a, const char *object, struct buf *out)
{
    buf_addf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%" PRId64 ",\"model\":", a->id,
             object, a->created);
    add_string(out, span_str(a->model));
    buf_add_str(out, ",\"choices\":[");
}

static void add_finish(struct buf *out, enum finish finish)
{
    buf_add_str(out, ",\"logprobs\":null,\"finish_reason\":");
    if (finish == FINISH_NONE)
        buf_add_str(out, "null");
    else
        add_string(out, span_str(finish_name(finish)));
}

static void add_usage(const struct request *r, const struct choice *choices, size_t n,
                      struct buf *out)
{
    uint64_t prompt = 0, completion = 0, reused = 0;

    for (size_t i = 0; i < r->nprompts; i++)
        prompt += r->prompts[i].n;
    for (size_t i = 0; i < n; i++) {
        completion += choices[i].tokens;
        reused += i % (size_t)r->n ? 0 : choices[i].reused;
    }
    buf_addf(out,
             "\"usage\":{\"prompt_tokens\":%" PRIu64 ",\"completion_tokens\":%" PRIu64
             ",\"total_tokens\":%" PRIu64 ",\"prompt_tokens_details\":{\"cached_tokens\":%" PRIu64
             "}}",
             prompt, completion, prompt + completion, reused);
}

void answer_whole(const struct answer *a, const struct request *r, const struct choice *choices,
                  size_t n, struct buf *out)
{
    add_head(a, a->chat ? "chat.completion" : "text_completion", out);
    for (size_t i = 0; i < n; i++) {
        buf_addf(out, "%s{\"index\":%zu,", i ? "," : "", i);
        buf_add_str(out,
                    a->chat ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"text\":");
        add_string(out, buf_span(&choices[i].text));
        if (a->chat)
            buf_add_str(out, ",\"refusal\":null}");
        add_finish(out, choices[i].finish);
        buf_add_char(out, '}');
    }
    buf_add_str(out, "],");
    add_usage(r, choices, n, out);
    buf_add_char(out, '}');
}

/* One event of a chat with this delta, or of a completion with this text. */
static void add_event(const struct answer *a, int index, const char *delta, struct span text,
                      const char *delta_end, enum finish finish, struct buf *out)
{
    buf_add_str(out, "data: ");
    add_head(a, a->chat ? "chat.completion.chunk" : "text_completion", out);
    buf_addf(out, "{\"index\":%d,", index);
    buf_add_str(out, delta);
    if (text.p)
        add_string(out, text);
    buf_add_str(out, delta_end);
    add_finish(out, finish);
    buf_add_str(out, a->usage ? "}],\"usage\":null}\n\n" : "}]}\n\n");
}

static void add_role(const struct answer *a, int index, struct buf *out)
{
    add_event(a, index, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"", (struct span){0}, "}",
              FINISH_NONE, out);
}

void answer_text(const struct answer *a, int index, bool first, struct span text, struct buf *out)
{
    if (a->chat && first)
        add_role(a, index, out);
    if (a->chat)
        add_event(a, index, "\"delta\":{\"content\":", text, "}", FINISH_NONE, out);
    else
        add_event(a, index, "\"text\":", text, "", FINISH_NONE, out);
}

void answer_finish(const struct answer *a, int index, bool first, enum finish finish,
                   struct buf *out)
{
    if (a->chat && first)
        add_role(a, index, out);
    add_event(a, index, a->chat ? "\"delta\":{" : "\"text\":\"", (struct span){0},
              a->chat ? "}" : "\"", finish, out);
}

void answer_usage(const struct answer *a, const struct request *r, const struct choice *choices,
                  size_t n, struct buf *out)
{
    buf_add_str(out, "data: ");
    add_head(a, a->chat ? "chat.completion.chunk" : "text_completion", out);
    buf_add_str(out, "],");
    add_usage(r, choices, n, out);
    buf_add_str(out, "}\n\n");
}

void answer_done(struct buf *out)
{
    buf_add_str(out, "data: [DONE]\n\n");
}

void answer_error(const char *message, struct buf *out)
{
    buf_add_str(out, "data: {\"error\":{\"message\":");
    add_string(out, span_str(message));
    buf_add_str(out, ",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n");
}
