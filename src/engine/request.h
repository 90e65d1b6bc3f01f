/*
 * request - what a client asks for, understood and checked.
 *
 * The body of /v1/completions or /v1/chat/completions becomes parameters and
 * token ids here; everything that is wrong with it is a 400 that names the field
 * and the range.  Fields that we do not have and that would change the answer are
 * refused, harmless ones are accepted.
 *
 * Counted: each of its streams keeps it.
 */
#pragma once
#include <jansson.h>

#include "engine/model.h"
#include "engine/prompt.h"
#include "engine/sampler.h"
#include "engine/tail.h"

enum {
    PROMPTS_MAX = 32,
    CHOICES_MAX = 64,
    STOP_TOKENS_MAX = 16,
    FIELD_MAX = 48,
    TOKENIZE_BYTES_MAX = 256 << 10 /* the HTTP thread does it: nobody may keep it for long */
};

enum request_kind { REQUEST_COMPLETION, REQUEST_CHAT };

struct request {
    int refs; /* atomic */
    enum request_kind kind;
    struct model *model; /* counted; the one it was tokenized with */
    struct sampling sampling;
    struct stops stops; /* each owned */
    llama_token stop_tokens[STOP_TOKENS_MAX];
    size_t nstop_tokens;
    uint64_t seed;
    int32_t max_tokens; /* -1: until the context is full */
    int32_t min_tokens;
    bool ignore_eos;
    bool reuse;        /* may begin with cells of an earlier prompt */
    bool stream;       /* answer as server-sent events */
    bool stream_usage; /* a last event with the usage */
    int n;             /* choices for each prompt */
    size_t nprompts;
    struct prompt prompts[PROMPTS_MAX]; /* owned */
};

/*
 * Parses a body. `context`: tokens that one stream may have. NULL with status 400,
 * a sentence, and the field's name in `field` ("" if it is the body as a whole).
 */
struct request *request_parse(enum request_kind kind, struct span body, struct model *model,
                              int32_t context, char field[FIELD_MAX], struct err *err);

struct request *request_ref(struct request *r);
void request_unref(struct request *r);

/* The token ids that /tokenize is asked for: `messages` in their frame, or
 * `prompt` / `content` as text. */
int request_tokenize(json_t *body, const struct model *model, struct prompt *out,
                     char field[FIELD_MAX], struct err *err) MUST_CHECK;

/* The body as a JSON object; NULL with 400. */
json_t *request_object(struct span body, struct err *err);
