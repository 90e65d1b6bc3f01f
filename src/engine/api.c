/*
 * api - see api.h.
 *
 * Each path is one row of a table.
 */
#include "engine/api.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/alloc.h"

static void reply_json(struct http_call *call, json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT);

    json_decref(object);
    ALWAYS(text);
    http_call_reply(call, 200, "application/json", NULL, span_str(text));
    free(text);
}

/* An error that names a field: {"error":{"message","type","param","code"}}. */
static void reply_wrong(struct http_call *call, const struct err *err, const char *field)
{
    json_t *object = json_pack("{s:{s:s,s:s,s:s?,s:n}}", "error", "message", err->text, "type",
                               "invalid_request_error", "param", field[0] ? field : NULL, "code");
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;

    json_decref(object);
    if (text)
        http_call_reply(call, err->status, "application/json", NULL, span_str(text));
    else
        http_call_error(call, err->status, NULL, "the request is not valid");
    free(text);
}

/* False after an answer that says why nothing can be generated now. */
static bool is_ready(const struct api *api, struct http_call *call)
{
    if (api->stopping)
        http_call_error(call, 503, "shutting_down", "the engine is shutting down");
    else if (engine_state(api->engine) == ENGINE_LOADING)
        http_call_error(call, 503, "loading", "Loading model");
    else if (engine_state(api->engine) != ENGINE_READY)
        http_call_error(call, 503, "failed", "the model could not be loaded");
    else
        return true;
    return false;
}

static void generate(struct api *api, struct http_call *call, enum request_kind kind)
{
    char field[FIELD_MAX];
    struct err err;

    if (!is_ready(api, call))
        return;
    struct request *r = request_parse(kind, http_call_body(call), engine_model(api->engine),
                                      engine_context(api->engine), field, &err);
    if (!r)
        reply_wrong(call, &err, field);
    else
        exchange_begin(&api->exchanges, call, r);
}

static void on_chat(struct api *api, struct http_call *call)
{
    generate(api, call, REQUEST_CHAT);
}

static void on_completion(struct api *api, struct http_call *call)
{
    generate(api, call, REQUEST_COMPLETION);
}

static void on_health(struct api *api, struct http_call *call)
{
    if (is_ready(api, call))
        http_call_reply(call, 200, "application/json", NULL, SPAN_LIT("{\"status\":\"ok\"}"));
}

static void on_models(struct api *api, struct http_call *call)
{
    struct model *m = engine_model(api->engine);

    json_t *entry = json_pack("{s:s,s:s,s:I,s:s}", "id", api->o->name, "object", "model", "created",
                              (json_int_t)(m ? m->loaded : 0), "owned_by", "segue");
    if (m)
        json_object_update_new(entry, json_pack("{s:i,s:{s:i,s:i,s:I,s:I,s:I}}", "max_model_len",
                                                engine_context(api->engine), "meta", "n_vocab",
                                                m->ntokens, "n_ctx_train", m->trained, "n_params",
                                                (json_int_t)llama_model_n_params(m->llama), "size",
                                                (json_int_t)llama_model_size(m->llama),
                                                "file_bytes", (json_int_t)m->file_bytes));
    reply_json(call, json_pack("{s:s,s:[o]}", "object", "list", "data", entry));
}

static void on_props(struct api *api, struct http_call *call)
{
    const struct options *o = api->o;

    if (!is_ready(api, call))
        return;
    struct model *m = engine_model(api->engine);
    json_t *props =
        json_pack("{s:s,s:s,s:s,s:i,s:i,s:i,s:s,s:s?}", "model", o->name, "model_path", m->path,
                  "architecture", m->architecture, "total_slots", o->parallel, "n_ctx",
                  engine_context(api->engine), "queue", o->queue, "chat_frame",
                  m->has_frame ? "hunyuan-dense" : "template", "chat_template", m->template);
    json_object_update_new(
        props, json_pack("{s:s,s:s,s:{s:f,s:i,s:f,s:f,s:f}}", "version", SEGUE_VERSION, "libllama",
                         llama_version(), "default_generation_settings", "temperature", 0.7,
                         "top_k", 20, "top_p", 0.6, "min_p", 0.0, "repetition_penalty", 1.05));
    reply_json(call, props);
}

static void on_version(struct api *api, struct http_call *call)
{
    reply_json(call, json_pack("{s:s,s:s}", "version", SEGUE_VERSION, "libllama", llama_version()));
}

static void on_metrics(struct api *api, struct http_call *call)
{
    struct buf out = {0};

    metrics_write(engine_metrics(api->engine), &out);
    http_call_reply(call, 200, "text/plain; version=0.0.4; charset=utf-8", NULL, buf_span(&out));
    buf_fini(&out);
}

static void on_tokenize(struct api *api, struct http_call *call)
{
    struct prompt p = {0};
    char field[FIELD_MAX] = "";
    struct err err;

    if (!is_ready(api, call))
        return;
    json_t *body = request_object(http_call_body(call), &err);
    if (!body || request_tokenize(body, engine_model(api->engine), &p, field, &err)) {
        reply_wrong(call, &err, field);
    } else {
        json_t *tokens = json_array();
        for (size_t i = 0; i < p.n; i++)
            json_array_append_new(tokens, json_integer(p.tokens[i]));
        reply_json(call, json_pack("{s:o,s:I,s:i}", "tokens", tokens, "count", (json_int_t)p.n,
                                   "max_model_len", engine_context(api->engine)));
    }
    json_decref(body);
    prompt_fini(&p);
}

static int read_tokens(json_t *body, const struct model *m, struct buf *out, struct err *err)
{
    json_t *tokens = json_object_get(body, "tokens"), *t;
    char piece[1024];
    size_t i;

    if (!json_is_array(tokens))
        return err_set(err, 400, "tokens must be an array of token ids");
    json_array_foreach(tokens, i, t)
    {
        json_int_t id = json_integer_value(t);
        if (!json_is_integer(t) || id < 0 || id >= m->ntokens)
            return err_set(err, 400, "tokens[%zu] is not a token id from 0 to %d", i,
                           m->ntokens - 1);
        buf_add(out, piece, model_piece(m, (llama_token)id, true, piece, sizeof(piece)));
    }
    return 0;
}

static void on_detokenize(struct api *api, struct http_call *call)
{
    struct buf text = {0}, out = {0};
    struct err err;

    if (!is_ready(api, call))
        return;
    json_t *body = request_object(http_call_body(call), &err);
    if (!body || read_tokens(body, engine_model(api->engine), &text, &err)) {
        reply_wrong(call, &err, body ? "tokens" : "");
    } else {
        buf_add_str(&out, "{\"content\":\"");
        buf_add_json(&out, buf_span(&text));
        buf_add_str(&out, "\",\"prompt\":\"");
        buf_add_json(&out, buf_span(&text));
        buf_add_str(&out, "\"}");
        http_call_reply(call, 200, "application/json", NULL, buf_span(&out));
    }
    json_decref(body);
    buf_fini(&text);
    buf_fini(&out);
}

static const struct path {
    const char *path;
    enum http_method method;
    void (*handle)(struct api *api, struct http_call *call);
} paths[] = {
    {"/v1/chat/completions", HTTP_POST, on_chat},
    {"/v1/completions", HTTP_POST, on_completion},
    {"/v1/models", HTTP_GET, on_models},
    {"/health", HTTP_GET, on_health},
    {"/tokenize", HTTP_POST, on_tokenize},
    {"/detokenize", HTTP_POST, on_detokenize},
    {"/props", HTTP_GET, on_props},
    {"/metrics", HTTP_GET, on_metrics},
    {"/version", HTTP_GET, on_version},
};

void api_handle(struct http_call *call, void *arg)
{
    const struct http_request_head *head = http_call_head(call);
    struct api *api = arg;

    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        const struct path *p = &paths[i];
        if (!span_eq_str(head->path, p->path))
            continue;
        if (head->method == p->method || (head->method == HTTP_HEAD && p->method == HTTP_GET))
            p->handle(api, call);
        else
            http_call_reply(call, 405, "application/json",
                            p->method == HTTP_GET ? "Allow: GET, HEAD\r\n" : "Allow: POST\r\n",
                            SPAN_LIT("{\"error\":{\"message\":\"this path has another "
                                     "method\",\"type\":\"invalid_request_error\",\"param\":null,"
                                     "\"code\":\"method_not_allowed\"}}"));
        return;
    }
    http_call_error(call, 404, "not_found", "there is no path " SPAN_FMT,
                    (int)(head->path.n < 200 ? head->path.n : 200), head->path.p);
}
