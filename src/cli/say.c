/*
 * say - `segue translate`: a text in HY-MT's prompt to the gateway, the answer
 * to standard output as it comes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "cli/ask.h"
#include "cli/internal.h"
#include "cli/screen.h"
#include "cli/sse.h"
#include "config/config.h"
#include "config/nearest.h"
#include "translate/prompt.h"

enum { TEXT_MAX = 1 << 20, SILENCE_MS = 300 * 1000, MAX_TOKENS = 2048 };

struct say {
    struct http_fetch *fetch; /* borrowed; NULL when it is done */
    struct sse sse;
    struct buf answer;  /* the translation so far; or the body of a refusal */
    struct buf refusal; /* the sentence of an error in the stream */
    char version[160];  /* X-Segue-Version */
    uint64_t began_ns, first_ns;
    size_t pieces;
    int status;
    bool live; /* print pieces as they come */
    bool done; /* [DONE] was seen */
    struct err err;
};

/* The language of a word, or NULL after a message. */
static const struct language *language_of(const char *option, const char *word)
{
    const struct language *language = language_find(word), *l;
    const char *names[256];
    struct buf list = {0};
    size_t n = 0;

    if (language)
        return language;
    for (size_t i = 0; (l = language_at(i)); i++) {
        ALWAYS(n + 2 <= COUNT_OF(names));
        names[n++] = l->code;
        names[n++] = l->english;
        buf_addf(&list, "%s%s", i ? ", " : "", l->code);
    }
    const char *near = nearest_word(word, names, n);
    say_error(CLI_USAGE, "%s: unknown language '%s'; %s%s%sthe languages are %s", option, word,
              near ? "did you mean '" : "", near ? near : "", near ? "'? " : "", buf_cstr(&list));
    buf_fini(&list);
    return NULL;
}

/* --- where to ask, and for what --------------------------------------- */

/* An address that can be connected to, from one that is listened on. */
static char *reachable(const char *listen)
{
    struct span s = span_str(listen);

    if (span_starts(s, SPAN_LIT("0.0.0.0:")))
        return str_fmt("127.0.0.1:%s", listen + strlen("0.0.0.0:"));
    if (span_starts(s, SPAN_LIT("[::]:")))
        return str_fmt("[::1]:%s", listen + strlen("[::]:"));
    return str_dup(listen);
}

/* Fills *address from the manager's status; the exit code. */
static int find_gateway(const struct args *args, char **address)
{
    json_t *status;
    int code = ask_admin(args, "GET", "/admin/v1/status", NULL, &status);

    if (code != CLI_DONE)
        return code;
    const json_t *listen = json_object_get(json_object_get(status, "gateway"), "listen"), *row;
    size_t i;
    json_array_foreach(listen, i, row)
    {
        if (!*address && !address_is_tls(json_string_value(row)))
            *address = reachable(json_string_value(row));
    }
    if (!*address && json_array_size(listen))
        code = say_error(CLI_REFUSED, "every address of the gateway speaks TLS, which this command "
                                      "does not; add a plain one on 127.0.0.1 to `listen`");
    else if (!*address)
        code = say_error(CLI_REFUSED, "the manager does not say where the gateway listens");
    json_decref(status);
    return code;
}

/* The only model there is, or the one that --model names. */
static int choose_model(const struct args *args, const char *address, char **model)
{
    struct buf list = {0};
    struct answer a;
    size_t i;
    json_t *row;

    if (args_has(args, OPTION_MODEL)) {
        *model = str_dup(args->options[OPTION_MODEL]);
        return CLI_DONE;
    }
    ask_gateway(&a, address, "/v1/models");
    const json_t *data = json_object_get(a.json, "data");
    json_array_foreach(data, i, row)
    {
        /* `hy-mt@v1` is a pin, not another model. */
        if (strchr(json_text(row, "id", "@"), '@'))
            continue;
        buf_addf(&list, "%s%s", buf_pending(&list) ? ", " : "", json_text(row, "id", ""));
        if (!*model)
            *model = str_dup(json_text(row, "id", ""));
    }
    int code = CLI_DONE;
    if (a.status == 0)
        code = say_error(CLI_NO_SERVER, "the gateway at %s: %s", address, a.err.text);
    else if (a.status == 401)
        code = say_error(CLI_REFUSED, "%s; put the key into SEGUE_API_KEY",
                         ask_error_message(a.json) ? ask_error_message(a.json) : "no key");
    else if (!*model)
        code = say_error(CLI_REFUSED, "the gateway at %s names no model (status %d)", address,
                         a.status);
    else if (strchr(buf_cstr(&list), ','))
        code = say_error(CLI_USAGE, "which model? --model is one of %s", buf_cstr(&list));
    buf_fini(&list);
    answer_fini(&a);
    return code;
}

/* --- the answer ------------------------------------------------------- */

static void on_event(const char *event, struct span data, void *arg)
{
    struct say *s = arg;

    if (span_eq_str(data, "[DONE]")) {
        s->done = true;
        return;
    }
    json_t *json = json_loadb(data.p, data.n, 0, NULL);
    const char *error = ask_error_message(json);
    const json_t *choice = json_array_get(json_object_get(json, "choices"), 0);
    const char *text = json_text(json_object_get(choice, "delta"), "content", "");

    if (error && !buf_pending(&s->refusal))
        buf_add_str(&s->refusal, error);
    if (*text) {
        if (!s->pieces++)
            s->first_ns = clock_ns();
        buf_add_str(&s->answer, text);
        if (s->live) {
            fputs(text, stdout);
            fflush(stdout);
        }
    }
    json_decref(json);
}

static void on_head(const struct http_response_head *head, void *arg)
{
    struct say *s = arg;
    const struct http_field *f =
        http_field_find(head->fields, head->nfields, HTTP_FIELD_X_SEGUE_VERSION);

    s->status = head->status;
    if (f)
        snprintf(s->version, sizeof(s->version), SPAN_FMT, SPAN_ARG(f->value));
}

static void on_data(struct span data, void *arg)
{
    struct say *s = arg;

    if (s->status != 200 && buf_pending(&s->refusal) < SSE_EVENT_MAX)
        buf_add_span(&s->refusal, data);
    else if (s->status == 200 && !sse_feed(&s->sse, data, on_event, s))
        http_fetch_cancel(s->fetch);
}

static void on_done(int status, struct span body, const struct err *err, void *arg)
{
    struct say *s = arg;

    s->fetch = NULL;
    if (status == 0)
        s->err = *err;
}

static void stream(struct say *s, const char *address, const char *model, struct span prompt)
{
    json_t *body =
        json_pack("{s:s, s:b, s:i, s:[{s:s, s:s%}]}", "model", model, "stream", true, "max_tokens",
                  MAX_TOKENS, "messages", "role", "user", "content", prompt.p, prompt.n);
    char *text = json_dumps(body, JSON_COMPACT), *key = ask_key_header();
    char *headers =
        str_fmt("Content-Type: application/json\r\nAccept: text/event-stream\r\n%s", key);
    struct http_fetch_events events = {on_head, on_data, on_done};
    struct http_fetch_options options = {.address = address,
                                         .method = "POST",
                                         .target = "/v1/chat/completions",
                                         .headers = headers,
                                         .body = span_str(text),
                                         .silence_ms = SILENCE_MS};
    uv_loop_t loop;

    ALWAYS(uv_loop_init(&loop) == 0);
    s->began_ns = clock_ns();
    s->fetch = http_fetch_start(&loop, &options, &events, s);
    ask_run(&loop);
    json_decref(body);
    free(text);
    free(key);
    free(headers);
}

static int say_refusal(struct say *s)
{
    json_t *json = json_loadb(buf_head(&s->refusal), buf_pending(&s->refusal), 0, NULL);
    const char *message = ask_error_message(json);

    int code = message ? say_error(CLI_REFUSED, "%s", message)
                       : say_error(CLI_REFUSED, "the gateway answered with status %d", s->status);
    json_decref(json);
    return code;
}

/* Ends the line on standard output and says how it went. */
static int say_outcome(struct say *s, const struct args *args, const char *address)
{
    char took[NUMBER_TEXT_MAX], first[NUMBER_TEXT_MAX];
    double seconds = (double)(clock_ns() - s->began_ns) / 1e9;

    if (s->live && s->pieces)
        putchar('\n');
    fflush(stdout); /* before what goes to standard error */
    if (s->status && s->status != 200)
        return say_refusal(s);
    if (!s->status)
        return say_error(CLI_NO_SERVER, "the gateway at %s: %s", address, s->err.text);
    if (buf_pending(&s->refusal))
        return say_error(CLI_REFUSED, "%s", buf_cstr(&s->refusal));
    if (!s->done)
        return say_error(CLI_REFUSED, "the answer was cut before its end: %s",
                         *s->err.text ? s->err.text : "no [DONE] came");
    if (args_has(args, OPTION_JSON)) {
        json_t *out = json_pack("{s:s, s:s, s:f}", "text", buf_cstr(&s->answer), "version",
                                s->version, "seconds", seconds);
        say_json(out);
        json_decref(out);
    }
    if (args_has(args, OPTION_VERBOSE))
        fprintf(stderr, "%s  %s, first piece after %s, %zu pieces\n", s->version,
                time_text(seconds, took),
                s->pieces ? time_text((double)(s->first_ns - s->began_ns) / 1e9, first) : "-",
                s->pieces);
    return CLI_DONE;
}

/* --- the command ------------------------------------------------------ */

/* The text: a word, or all of standard input for "-". */
static int read_text(const struct args *args, struct buf *text)
{
    if (strcmp(args->words[0], "-") != 0) {
        buf_add_str(text, args->words[0]);
    } else {
        size_t n;
        while ((n = fread(buf_room(text, 4096), 1, 4096, stdin)) > 0 &&
               buf_pending(text) <= TEXT_MAX)
            buf_added(text, n);
        while (buf_pending(text) && text->data[text->len - 1] == '\n')
            text->len--;
    }
    struct span all = span_of(buf_head(text), buf_pending(text));
    while (all.n && strchr(" \t\r\n", all.p[all.n - 1]))
        all.n--;
    if (all.n == 0)
        return say_error(CLI_USAGE, "there is no text to translate");
    if (buf_pending(text) > TEXT_MAX)
        return say_error(CLI_USAGE, "the text is larger than %d bytes", TEXT_MAX);
    return CLI_DONE;
}

static int translate(const struct args *args, struct span prompt)
{
    struct say s = {.live = !args_has(args, OPTION_JSON)};
    char *address = str_dup(args->options[OPTION_ADDRESS]), *model = NULL;

    int code = address ? CLI_DONE : find_gateway(args, &address);
    if (code == CLI_DONE)
        code = choose_model(args, address, &model);
    if (code == CLI_DONE) {
        stream(&s, address, model, prompt);
        code = say_outcome(&s, args, address);
    }
    sse_fini(&s.sse);
    buf_fini(&s.answer);
    buf_fini(&s.refusal);
    free(address);
    free(model);
    return code;
}

int run_translate(const struct args *args)
{
    const char *to_word = args->options[OPTION_TO], *from_word = args->options[OPTION_FROM];
    const struct language *to, *from = NULL;
    struct buf text = {0}, prompt = {0};

    if (!to_word)
        return say_error(CLI_USAGE, "translate needs --to LANGUAGE, for example --to en");
    if (!(to = language_of("--to", to_word)) ||
        (from_word && !(from = language_of("--from", from_word))))
        return CLI_USAGE;
    int code = read_text(args, &text);
    if (code == CLI_DONE && !utf8_valid(buf_head(&text), buf_pending(&text)))
        code = say_error(CLI_USAGE, "the text is not UTF-8");
    if (code == CLI_DONE) {
        prompt_translate(&prompt, from, to, buf_span(&text));
        code = translate(args, buf_span(&prompt));
    }
    buf_fini(&text);
    buf_fini(&prompt);
    return code;
}
