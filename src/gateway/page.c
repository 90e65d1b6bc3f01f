/*
 * gateway/page - what the gateway answers by itself.
 *
 * Only the paths in this table exist on the public listener.  The engines' own
 * development endpoints (/sleep, /collective_rpc, /slots, ...) and the admin
 * verbs are not in it, so no spelling of a path leads there.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "gateway/internal.h"
#include "gateway/route.h"
#include "web/web.h"

enum page_kind { PAGE_ENGINE, PAGE_MODELS, PAGE_HEALTH, PAGE_READINESS, PAGE_VERSION };

/* path, kind */
static const struct {
    const char *path;
    enum page_kind kind;
} pages[] = {
    {"/v1/chat/completions", PAGE_ENGINE},
    {"/v1/completions", PAGE_ENGINE},
    {"/v1/embeddings", PAGE_ENGINE},
    {"/v1/responses", PAGE_ENGINE},
    {"/v1/messages", PAGE_ENGINE},
    {"/v1/rerank", PAGE_ENGINE},
    {"/v1/score", PAGE_ENGINE},
    {"/v1/moderations", PAGE_ENGINE},
    {"/v1/models", PAGE_MODELS},
    {"/health", PAGE_HEALTH},
    {"/liveness", PAGE_HEALTH},
    {"/readiness", PAGE_READINESS},
    {"/version", PAGE_VERSION},
};

static void reply_json(struct client *c, int status, struct span body)
{
    client_reply(c, status, "application/json", NULL, body);
}

static void answer_readiness(struct client *c)
{
    const struct table *t = c->worker->view->table;

    for (size_t i = 0; i < t->nmodels; i++) {
        const struct model_route *m = t->models[i];
        bool ready = false;
        for (size_t v = 0; v < m->nversions; v++)
            ready |= m->versions[v].weight && route_any_ready(&m->versions[v]);
        if (!ready) {
            client_error(c, GATEWAY_ERROR_NO_REPLICA, "not ready: no engine answers for '%s'",
                         m->name);
            return;
        }
    }
    if (t->epoch == 0)
        client_error(c, GATEWAY_ERROR_NO_REPLICA, "not ready: no route table yet");
    else
        reply_json(c, 200, SPAN_LIT("{\"status\":\"ready\"}\n"));
}

static bool is_read(const struct http_request_head *head)
{
    return head->method == HTTP_GET || head->method == HTTP_HEAD;
}

static void wrong_method(struct client *c, const char *allow)
{
    char header[64];

    snprintf(header, sizeof(header), "Allow: %s\r\n", allow);
    client_error_headers(c, GATEWAY_ERROR_METHOD, header, "the method is not allowed here; use %s",
                         allow);
}

/* GET /v1/models/NAME */
static bool answer_model(struct client *c, struct span name)
{
    struct table_match match;
    struct buf body = {0};

    if (!table_find(c->worker->view->table, name, &match))
        return false;
    buf_add_str(&body, "{\"id\":\"");
    buf_add_json(&body, span_str(match.version ? match.version->tag : match.model->name));
    buf_add_str(&body, "\",\"object\":\"model\",\"created\":0,\"owned_by\":\"segue\"}\n");
    reply_json(c, 200, buf_span(&body));
    buf_fini(&body);
    return true;
}

static bool has_etag(const struct http_request_head *head, const char *etag)
{
    for (size_t i = 0; i < head->nfields; i++)
        if (span_eq_nocase(head->fields[i].name, SPAN_LIT("if-none-match")))
            return span_eq_str(head->fields[i].value, etag);
    return false;
}

/* The translate page. */
static bool answer_file(struct client *c, const struct http_request_head *head)
{
    const struct web_file *f = web_file_find(head->path);

    if (!f)
        return false;
    char *headers = str_fmt(WEB_HEADERS "ETag: %s\r\n", f->etag);
    if (has_etag(head, f->etag))
        client_reply(c, 304, NULL, headers, span_of(NULL, 0));
    else
        client_reply(c, 200, f->content_type, headers, span_of(f->data, f->n));
    free(headers);
    return true;
}

static void answer_page(struct client *c, enum page_kind kind)
{
    const struct table *t = c->worker->view->table;
    struct buf body = {0};

    switch (kind) {
    case PAGE_MODELS:
        table_models_json(t, &body);
        reply_json(c, 200, buf_span(&body));
        buf_fini(&body);
        break;
    case PAGE_HEALTH:
        reply_json(c, 200, SPAN_LIT("{\"status\":\"ok\"}\n"));
        break;
    case PAGE_VERSION:
        reply_json(c, 200, SPAN_LIT("{\"version\":\"" SEGUE_VERSION "\"}\n"));
        break;
    case PAGE_READINESS:
        answer_readiness(c);
        break;
    case PAGE_ENGINE:
        break;
    }
}

bool page_answer(struct client *c, const struct http_request_head *head)
{
    static const struct span models = {"/v1/models/", 11};

    for (size_t i = 0; i < COUNT_OF(pages); i++) {
        if (!span_eq_str(head->path, pages[i].path))
            continue;
        if (pages[i].kind == PAGE_ENGINE) {
            if (head->method == HTTP_POST)
                return false;
            wrong_method(c, "POST");
        } else if (is_read(head)) {
            answer_page(c, pages[i].kind);
        } else {
            wrong_method(c, "GET");
        }
        return true;
    }
    if (is_read(head) && span_starts(head->path, models) &&
        answer_model(c, span_of(head->path.p + models.n, head->path.n - models.n)))
        return true;
    if (is_read(head) && answer_file(c, head))
        return true;
    client_error(c, GATEWAY_ERROR_NOT_FOUND,
                 "there is nothing at '%.*s'; the API is at /v1/chat/completions, "
                 "/v1/completions and /v1/models",
                 (int)(head->path.n > 200 ? 200 : head->path.n), head->path.p);
    return true;
}
