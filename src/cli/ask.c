/* ask - see ask.h. */
#include "cli/ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "cli/internal.h"

enum { ADMIN_TIMEOUT_MS = 120 * 1000 };

static const char *socket_path(const struct args *args)
{
    const char *path = args->options[OPTION_SOCKET];

    if (!path)
        path = getenv("SEGUE_SOCKET");
    return path && *path ? path : "./run/admin.sock";
}

char *ask_admin_address(const struct args *args)
{
    return str_fmt("unix:%s", socket_path(args));
}

void ask_add_encoded(struct buf *out, const char *text)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";

    for (; *text; text++) {
        if (strchr(plain, *text))
            buf_add_char(out, *text);
        else
            buf_addf(out, "%%%02X", (unsigned char)*text);
    }
}

static void on_done(int status, struct span body, const struct err *err, void *arg)
{
    struct answer *a = arg;

    a->status = status;
    if (status)
        a->json = json_loadb(body.p ? body.p : "", body.n, 0, NULL);
    else
        a->err = *err;
    if (a->json && !json_is_object(a->json)) {
        json_decref(a->json);
        a->json = NULL;
    }
}

void ask_run(uv_loop_t *loop)
{
    uv_run(loop, UV_RUN_DEFAULT);
    ALWAYS(uv_loop_close(loop) == 0);
}

char *ask_key_header(void)
{
    const char *key = getenv("SEGUE_API_KEY");

    /* What cannot stand in a header line would only be refused there. */
    if (!key || !*key || key[strcspn(key, "\r\n")])
        return str_dup("");
    return str_fmt("Authorization: Bearer %s\r\n", key);
}

static void fetch(struct answer *out, const char *address, const char *method, const char *target,
                  const char *headers, const char *body)
{
    struct http_fetch_events events = {.on_done = on_done};
    struct http_fetch_options options = {.address = address,
                                         .method = method,
                                         .target = target,
                                         .headers = headers,
                                         .body = span_str(body),
                                         .timeout_ms = ADMIN_TIMEOUT_MS};
    uv_loop_t loop;

    *out = (struct answer){0};
    ALWAYS(uv_loop_init(&loop) == 0);
    http_fetch_start(&loop, &options, &events, out);
    ask_run(&loop);
}

void ask(struct answer *out, const char *address, const char *method, const char *target,
         json_t *body)
{
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;

    fetch(out, address, method, target, text ? "Content-Type: application/json\r\n" : NULL, text);
    free(text);
    json_decref(body);
}

void ask_gateway(struct answer *out, const char *address, const char *target)
{
    char *headers = ask_key_header();

    fetch(out, address, "GET", target, headers, NULL);
    free(headers);
}

void answer_fini(struct answer *a)
{
    json_decref(a->json);
    a->json = NULL;
}

const char *ask_error_message(const json_t *json)
{
    return json_string_value(json_object_get(json_object_get(json, "error"), "message"));
}

int ask_no_server(const struct args *args, const char *why)
{
    return say_error(CLI_NO_SERVER,
                     "nobody answers at %s (%s); start it with `segue serve`, or say where it is "
                     "with --socket or SEGUE_SOCKET",
                     socket_path(args), why);
}

int ask_admin(const struct args *args, const char *method, const char *target, json_t *body,
              json_t **out)
{
    char *address = ask_admin_address(args);
    struct answer a;
    int code = CLI_DONE;

    ask(&a, address, method, target, body);
    free(address);
    *out = NULL;
    if (a.status == 0) {
        code = ask_no_server(args, a.err.text);
    } else if (a.status / 100 != 2) {
        const char *message = ask_error_message(a.json);
        if (message && args_has(args, OPTION_JSON))
            say_json(a.json);
        code = message ? say_error(CLI_REFUSED, "%s", message)
                       : say_error(CLI_REFUSED, "the manager answered with status %d and no reason",
                                   a.status);
    } else if (!a.json) {
        code = say_error(CLI_REFUSED, "the manager's answer is not a JSON object");
    } else {
        *out = json_incref(a.json);
    }
    answer_fini(&a);
    return code;
}

const char *json_text(const json_t *o, const char *key, const char *otherwise)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : otherwise;
}

int64_t json_int(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}
