/*
 * request - see request.h.
 *
 * Three tables: numbers with their ranges, fields that must have their neutral
 * value because we lack what they ask for, fields that change nothing.  A field
 * in none of them is ignored, unless it looks like a misspelt one: a request
 * with `temprature` wants something that it would not get.
 */
#include "engine/request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "engine/messages.h"

/* Fields with a number.    name                    member       integer  from   to   default */
// clang-format off
#define REQUEST_NUMBERS(X)                                                             \
    X("temperature",           temperature, false, 0,          2,          0.7)        \
    X("top_p",                 top_p,       false, 0,          1,          0.6)        \
    X("min_p",                 min_p,       false, 0,          1,          0)          \
    X("top_k",                 top_k,       true,  -1,         1000000,    20)         \
    X("repetition_penalty",    repetition,  false, 0.01,       10,         1.05)       \
    X("repeat_penalty",        repetition,  false, 0.01,       10,         1.05)       \
    X("frequency_penalty",     frequency,   false, -2,         2,          0)          \
    X("presence_penalty",      presence,    false, -2,         2,          0)          \
    X("seed",                  seed,        true,  -9007199254740992.0, 9007199254740992.0, 0) \
    X("max_tokens",            max_tokens,  true,  -1,         1000000000, -1)         \
    X("max_completion_tokens", max_tokens,  true,  -1,         1000000000, -1)         \
    X("min_tokens",            min_tokens,  true,  0,          1000000000, 0)          \
    X("n",                     n,           true,  1,          16,         1)

/* Fields with a flag.  name                   member        default */
#define REQUEST_FLAGS(X)                                        \
    X("stream",                 stream,       false)            \
    X("ignore_eos",             ignore_eos,   false)            \
    X("cache_prompt",           reuse,        true)             \
    X("parse_special",          special,      true)             \
    X("add_special_tokens",     begin,        true)             \
    X("add_generation_prompt",  answer,       true)             \
    X("continue_final_message", open_end,     false)
// clang-format on

/* What we cannot do, with what may stand there all the same ("" : only null, false,
 * 0, "", [] and {}). */
static const struct neutral {
    const char *name, *allowed;
} neutrals[] = {
    {"logprobs", ""},
    {"top_logprobs", ""},
    {"echo", ""},
    {"suffix", ""},
    {"best_of", "1"},
    {"tools", ""},
    {"tool_choice", "none"},
    {"functions", ""},
    {"function_call", "none"},
    {"response_format", "text"},
    {"modalities", "text"},
    {"audio", ""},
    {"prediction", ""},
    {"web_search_options", ""},
    {"grammar", ""},
    {"json_schema", ""},
    {"guided_json", ""},
    {"guided_regex", ""},
    {"guided_choice", ""},
    {"guided_grammar", ""},
    {"structured_outputs", ""},
    {"use_beam_search", ""},
    {"length_penalty", "1"},
    {"prompt_logprobs", ""},
    {"prompt_embeds", ""},
    {"include_stop_str_in_output", ""},
    {"bad_words", ""},
    {"allowed_token_ids", ""},
    {"truncate_prompt_tokens", ""},
    {"logits_processors", ""},
    {"typical_p", "1"},
    {"tfs_z", "1"},
    {"mirostat", ""},
    {"dry_multiplier", ""},
    {"xtc_probability", ""},
    {"dynatemp_range", ""},
    {"top_n_sigma", "-1"},
    {"samplers", ""},
    {"chat_template", ""},
    {"documents", ""},
    {"lora", ""},
    {"input_prefix", ""},
    {"input_suffix", ""},
    {"n_probs", ""},
};

/* Known, and without an effect on the answer; or read by code of their own. */
static const char *const harmless[] = {
    "model",
    "messages",
    "prompt",
    "stop",
    "stop_token_ids",
    "logit_bias",
    "stream_options",
    "user",
    "metadata",
    "store",
    "service_tier",
    "priority",
    "request_id",
    "verbosity",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "reasoning_effort",
    "chat_template_kwargs",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "timings_per_token",
    "id_slot",
    "return_tokens",
};

/* Everything that is read from the body before it becomes a request. */
struct reading {
    double temperature, top_p, min_p, top_k, repetition, frequency, presence, seed;
    double max_tokens, min_tokens, n;
    bool stream, ignore_eos, reuse, special, begin, answer, open_end;
    bool asked_repetition, asked_seed;
    json_t *body; /* borrowed */
    char *field;  /* where the name of the wrong field goes */
    struct err *err;
};

static int wrong(struct reading *r, const char *field, const char *fmt, ...) PRINTF_LIKE(3, 4);

static int wrong(struct reading *r, const char *field, const char *fmt, ...)
{
    char text[ERR_TEXT_MAX / 2];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    snprintf(r->field, FIELD_MAX, "%s", field);
    return err_set(r->err, 400, "%s %s", field, text);
}

static int read_number(struct reading *r, const char *name, bool integer, double from, double to,
                       double *out)
{
    json_t *v = json_object_get(r->body, name);

    if (!v || json_is_null(v))
        return 0;
    double d = json_number_value(v);
    if (!json_is_number(v) || (integer && d != floor(d)))
        return wrong(r, name, "must be %s from %.15g to %.15g", integer ? "an integer" : "a number",
                     from, to);
    if (!(d >= from && d <= to))
        return wrong(r, name, "is %.15g; it must be from %.15g to %.15g", d, from, to);
    *out = d;
    return 1;
}

static int read_numbers(struct reading *r)
{
    int got;

#define X(name, member, integer, from, to, otherwise) r->member = otherwise;
    REQUEST_NUMBERS(X)
#undef X
#define X(name, member, integer, from, to, otherwise)          \
    got = read_number(r, name, integer, from, to, &r->member); \
    if (got < 0)                                               \
        return -1;                                             \
    if (got && (void *)&r->member == (void *)&r->repetition)   \
        r->asked_repetition = true;                            \
    if (got && (void *)&r->member == (void *)&r->seed)         \
        r->asked_seed = true;
    REQUEST_NUMBERS(X)
#undef X
    if (r->max_tokens == 0)
        return wrong(
            r, json_object_get(r->body, "max_tokens") ? "max_tokens" : "max_completion_tokens",
            "is 0; it must be at least 1 (-1: as many as the context has room for)");
    return 0;
}

static int read_flags(struct reading *r)
{
    json_t *v;

#define X(name, member, otherwise)                          \
    r->member = otherwise;                                  \
    v = json_object_get(r->body, name);                     \
    if (v && !json_is_null(v)) {                            \
        if (!json_is_boolean(v))                            \
            return wrong(r, name, "must be true or false"); \
        r->member = json_is_true(v);                        \
    }
    REQUEST_FLAGS(X)
#undef X
    return 0;
}

static bool is_empty(json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_NULL:
    case JSON_FALSE:
        return true;
    case JSON_INTEGER:
    case JSON_REAL:
        return json_number_value(v) == 0;
    case JSON_STRING:
        return json_string_length(v) == 0;
    case JSON_ARRAY:
        return json_array_size(v) == 0;
    case JSON_OBJECT:
        return json_object_size(v) == 0;
    default:
        return false;
    }
}

/* 1 for the neutral 1, "text" for {"type":"text"} and ["text"], "none" and "auto". */
static bool is_neutral(json_t *v, const char *allowed)
{
    if (is_empty(v))
        return true;
    if (json_is_number(v))
        return *allowed && json_number_value(v) == atof(allowed) && strcmp(allowed, "text") != 0;
    if (json_is_object(v))
        v = json_object_get(v, "type");
    else if (json_is_array(v) && json_array_size(v) == 1)
        v = json_array_get(v, 0);
    const char *s = json_string_value(v);
    if (!s || !*allowed)
        return false;
    return strcmp(s, allowed) == 0 || (strcmp(allowed, "none") == 0 && strcmp(s, "auto") == 0);
}

/* At most one letter more, less, other, or two neighbours exchanged. */
static bool nearly(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    if (!*a && !*b)
        return false; /* the same */
    if (*a && strcmp(a + 1, b) == 0)
        return true;
    if (*b && strcmp(a, b + 1) == 0)
        return true;
    if (*a && *b && strcmp(a + 1, b + 1) == 0)
        return true;
    return *a && *b && a[0] == b[1] && a[1] == b[0] && strcmp(a + 2, b + 2) == 0;
}

static const char *const parameters[] = {
#define X(name, ...) name,
    REQUEST_NUMBERS(X) REQUEST_FLAGS(X)
#undef X
};

static bool is_known(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(parameters); i++)
        if (strcmp(parameters[i], name) == 0)
            return true;
    for (size_t i = 0; i < COUNT_OF(harmless); i++)
        if (strcmp(harmless[i], name) == 0)
            return true;
    for (size_t i = 0; i < COUNT_OF(neutrals); i++)
        if (strcmp(neutrals[i].name, name) == 0)
            return true;
    return false;
}

static int check_fields(struct reading *r)
{
    const char *name;
    json_t *v;

    for (size_t i = 0; i < COUNT_OF(neutrals); i++) {
        v = json_object_get(r->body, neutrals[i].name);
        if (v && !is_neutral(v, neutrals[i].allowed))
            return wrong(r, neutrals[i].name, "is not supported here%s%s",
                         neutrals[i].allowed[0] ? "; leave it out or use " : "; leave it out",
                         neutrals[i].allowed);
    }
    json_object_foreach(r->body, name, v)
    {
        if (is_known(name) || strlen(name) < 4)
            continue;
        for (size_t i = 0; i < COUNT_OF(parameters); i++)
            if (strlen(parameters[i]) >= 4 && nearly(name, parameters[i]))
                return wrong(r, name, "is not a field; did you mean %s?", parameters[i]);
    }
    return 0;
}

/* --- stop strings, stop tokens, bias ------------------------------------- */

static int add_stop(struct reading *r, struct stops *stops, json_t *v)
{
    size_t n = json_string_length(v);

    if (!json_is_string(v) || n == 0 || n > STOP_BYTES_MAX)
        return wrong(r, "stop", "must be a string, or up to %d strings, of 1 to %d bytes",
                     STOPS_MAX, STOP_BYTES_MAX);
    char *copy = mem_alloc(n);
    memcpy(copy, json_string_value(v), n);
    stops->s[stops->n++] = span_of(copy, n);
    return 0;
}

static int read_stops(struct reading *r, struct stops *stops)
{
    json_t *v = json_object_get(r->body, "stop"), *one;
    size_t i;

    if (!v || json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0))
        return 0;
    if (!json_is_array(v))
        return add_stop(r, stops, v);
    if (json_array_size(v) > STOPS_MAX)
        return wrong(r, "stop", "has %zu strings; at most %d are taken", json_array_size(v),
                     STOPS_MAX);
    json_array_foreach(v, i, one) if (add_stop(r, stops, one)) return -1;
    return 0;
}

static bool is_token(const struct model *m, json_t *v)
{
    return json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < m->ntokens;
}

static int read_stop_tokens(struct reading *r, struct request *q)
{
    json_t *v = json_object_get(r->body, "stop_token_ids"), *one;
    size_t i;

    if (!v || json_is_null(v))
        return 0;
    if (!json_is_array(v) || json_array_size(v) > STOP_TOKENS_MAX)
        return wrong(r, "stop_token_ids", "must be an array of up to %d token ids",
                     STOP_TOKENS_MAX);
    json_array_foreach(v, i, one)
    {
        if (!json_is_integer(one) || json_integer_value(one) < 0)
            return wrong(r, "stop_token_ids", "must be an array of token ids");
        /* The model's README names another model's id; an id that cannot come stops nothing. */
        if (is_token(q->model, one))
            q->stop_tokens[q->nstop_tokens++] = (llama_token)json_integer_value(one);
    }
    return 0;
}

static int read_bias(struct reading *r, struct request *q)
{
    json_t *v = json_object_get(r->body, "logit_bias"), *value;
    const char *key;
    uint64_t token;

    if (!v || json_is_null(v))
        return 0;
    if (!json_is_object(v))
        return wrong(r, "logit_bias", "must be an object from token ids to numbers");
    q->sampling.bias = mem_zero(json_object_size(v) * sizeof(q->sampling.bias[0]));
    json_object_foreach(v, key, value)
    {
        double d = json_number_value(value);
        if (!span_u64(span_str(key), &token) || token >= (uint64_t)q->model->ntokens ||
            !json_is_number(value) || !(d >= -100 && d <= 100))
            return wrong(r, "logit_bias",
                         "must give numbers from -100 to 100 for token ids below %d",
                         q->model->ntokens);
        q->sampling.bias[q->sampling.nbias++] = (llama_logit_bias){
            .token = (llama_token)token, .bias = d <= -100 ? -INFINITY : (float)d};
    }
    return 0;
}

/* --- prompts --------------------------------------------------------------- */

/* Bytes of a text that can fit; more is refused before time is spent on it. */
static size_t most_bytes(const struct model *m, int32_t context)
{
    return (size_t)context * (size_t)m->longest_piece;
}

static int check_text(struct reading *r, size_t bytes, size_t most, const char *field)
{
    if (bytes <= most)
        return 0;
    return wrong(r, field, "has %zu bytes; it cannot have more than %zu here (--ctx-size)", bytes,
                 most);
}

static int check_room(struct reading *r, const struct prompt *p, int32_t context, const char *field)
{
    if (p->n == 0)
        return wrong(r, field, "is empty; at least one token is needed");
    if (p->n < (size_t)context)
        return 0;
    return wrong(r, field,
                 "has %zu tokens; the context holds %d (--ctx-size) and at least one must be left "
                 "for the answer",
                 p->n, context);
}

static int read_ids(struct reading *r, const struct model *m, json_t *ids, struct prompt *out)
{
    json_t *v;
    size_t i;

    json_array_foreach(ids, i, v)
    {
        if (!is_token(m, v))
            return wrong(r, "prompt", "has an entry that is not a token id from 0 to %d",
                         m->ntokens - 1);
        prompt_add_token(out, (llama_token)json_integer_value(v));
    }
    return 0;
}

static int read_prompt(struct reading *r, const struct model *m, int32_t context, json_t *v,
                       struct prompt *out)
{
    if (json_is_array(v)) {
        if (read_ids(r, m, v, out))
            return -1;
    } else if (json_is_string(v)) {
        struct span text = span_of(json_string_value(v), json_string_length(v));
        if (check_text(r, text.n, most_bytes(m, context), "prompt"))
            return -1;
        if (prompt_add_text(out, m, text, r->special, r->begin, r->err))
            return wrong(r, "prompt", "is too long");
    } else {
        return wrong(r, "prompt", "must be a string, an array of token ids, or an array of those");
    }
    return check_room(r, out, context, "prompt");
}

static int read_prompts(struct reading *r, struct request *q, int32_t context)
{
    json_t *v = json_object_get(r->body, "prompt"), *one;
    size_t i;

    if (!v)
        return wrong(r, "prompt", "is missing");
    bool several = json_is_array(v) && !json_is_integer(json_array_get(v, 0));
    if (!several) {
        q->nprompts = 1;
        return read_prompt(r, q->model, context, v, &q->prompts[0]);
    }
    if (json_array_size(v) == 0 || json_array_size(v) > PROMPTS_MAX)
        return wrong(r, "prompt", "must have 1 to %d entries", PROMPTS_MAX);
    json_array_foreach(v, i, one) if (read_prompt(r, q->model, context, one,
                                                  &q->prompts[q->nprompts++])) return -1;
    return 0;
}

static int frame_messages(struct reading *r, const struct model *m, size_t most, struct prompt *out)
{
    struct messages list;
    size_t bytes = 0;

    if (messages_read(&list, json_object_get(r->body, "messages"), r->field, FIELD_MAX, r->err))
        return -1;
    for (size_t i = 0; i < list.n; i++)
        bytes += list.m[i].text.n;
    int rc = check_text(r, bytes, most, "messages");
    if (rc == 0 && r->open_end && list.m[list.n - 1].role != ROLE_ASSISTANT)
        rc = wrong(r, "continue_final_message", "needs a last message with the role \"assistant\"");
    if (rc == 0 && r->open_end && json_object_get(r->body, "add_generation_prompt") && r->answer)
        rc = wrong(r, "add_generation_prompt", "must be false with continue_final_message");
    if (rc == 0)
        rc = prompt_add_chat(out, m, list.m, list.n, r->answer, r->open_end, r->err);
    messages_fini(&list);
    return rc;
}

static int read_chat(struct reading *r, struct request *q, int32_t context)
{
    q->nprompts = 1;
    if (frame_messages(r, q->model, most_bytes(q->model, context), &q->prompts[0]))
        return -1;
    return check_room(r, &q->prompts[0], context, "messages");
}

/* --- the whole ---------------------------------------------------------------- */

static uint64_t random_seed(void)
{
    uint64_t seed = 0;

    if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
        seed = clock_ns();
    return seed;
}

static void settle(struct request *q, const struct reading *r)
{
    struct sampling *s = &q->sampling;

    s->temperature = (float)r->temperature;
    s->top_p = (float)r->top_p;
    s->min_p = (float)r->min_p;
    s->top_k = r->top_k < 0 ? 0 : (int)r->top_k;
    s->frequency = (float)r->frequency;
    s->presence = (float)r->presence;
    /* Greedy means the model's own first choice, unless a penalty was asked for. */
    s->repetition = s->temperature == 0 && !r->asked_repetition ? 1.0f : (float)r->repetition;
    q->seed = r->asked_seed ? (uint64_t)(int64_t)r->seed : random_seed();
    q->max_tokens = (int32_t)r->max_tokens;
    q->min_tokens = (int32_t)r->min_tokens;
    q->n = (int)r->n;
    q->ignore_eos = r->ignore_eos;
    q->reuse = r->reuse;
    q->stream = r->stream;
    q->stream_usage =
        json_is_true(json_object_get(json_object_get(r->body, "stream_options"), "include_usage"));
}

json_t *request_object(struct span body, struct err *err)
{
    json_error_t where;

    if (span_trim(body).n == 0) {
        err_set(err, 400, "the body is empty; a JSON object is needed");
        return NULL;
    }
    json_t *v = json_loadb(body.p, body.n,
                           JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &where);
    if (!v) {
        err_set(err, 400, "the body is not valid JSON: %s (line %d, column %d)", where.text,
                where.line, where.column);
        return NULL;
    }
    if (json_is_object(v))
        return v;
    json_decref(v);
    err_set(err, 400, "the body is JSON but not an object");
    return NULL;
}

static int fill(struct request *q, struct reading *r, int32_t context)
{
    if (read_numbers(r) || read_flags(r) || check_fields(r))
        return -1;
    settle(q, r);
    if (read_stops(r, &q->stops) || read_stop_tokens(r, q) || read_bias(r, q))
        return -1;
    if (q->kind == REQUEST_CHAT ? read_chat(r, q, context) : read_prompts(r, q, context))
        return -1;
    if (q->nprompts * (size_t)q->n > CHOICES_MAX)
        return wrong(r, "n", "times the number of prompts must be at most %d", CHOICES_MAX);
    return 0;
}

struct request *request_parse(enum request_kind kind, struct span body, struct model *model,
                              int32_t context, char field[FIELD_MAX], struct err *err)
{
    field[0] = '\0';
    json_t *object = request_object(body, err);
    if (!object)
        return NULL;
    struct reading r = {.body = object, .field = field, .err = err};
    struct request *q = NEW(struct request);
    q->refs = 1;
    q->kind = kind;
    q->model = model_ref(model);
    int rc = fill(q, &r, context);
    json_decref(object);
    if (rc) {
        request_unref(q);
        return NULL;
    }
    return q;
}

struct request *request_ref(struct request *r)
{
    __atomic_add_fetch(&r->refs, 1, __ATOMIC_RELAXED);
    return r;
}

void request_unref(struct request *r)
{
    if (!r || __atomic_sub_fetch(&r->refs, 1, __ATOMIC_ACQ_REL))
        return;
    for (size_t i = 0; i < r->stops.n; i++)
        free((char *)r->stops.s[i].p);
    for (size_t i = 0; i < r->nprompts; i++)
        prompt_fini(&r->prompts[i]);
    free(r->sampling.bias);
    model_unref(r->model);
    free(r);
}

int request_tokenize(json_t *body, const struct model *model, struct prompt *out,
                     char field[FIELD_MAX], struct err *err)
{
    struct reading r = {.body = body, .field = field, .err = err};
    json_t *text = json_object_get(body, "content");

    field[0] = '\0';
    if (read_flags(&r))
        return -1;
    if (json_object_get(body, "messages"))
        return frame_messages(&r, model, TOKENIZE_BYTES_MAX, out);
    if (!text)
        text = json_object_get(body, "prompt");
    if (!json_is_string(text))
        return wrong(&r, "content", "must be a string (or give prompt, or messages)");
    if (json_string_length(text) > TOKENIZE_BYTES_MAX)
        return wrong(&r, "content", "has %zu bytes; at most %d are taken", json_string_length(text),
                     TOKENIZE_BYTES_MAX);
    return prompt_add_text(out, model, span_of(json_string_value(text), json_string_length(text)),
                           r.special, r.begin, err);
}
