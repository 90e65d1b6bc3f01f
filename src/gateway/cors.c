/* gateway/cors - see cors.h. */
#include "gateway/cors.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "gateway/internal.h"

static bool allowed(char *const *origins, struct span origin)
{
    for (; *origins; origins++)
        if (strcmp(*origins, "*") == 0 || span_eq_str(origin, *origins))
            return true;
    return false;
}

void cors_take(struct client *c, const struct http_request_head *head)
{
    char *const *origins = c->worker->view->table->cors;
    const struct http_field *f = http_field_find(head->fields, head->nfields, HTTP_FIELD_ORIGIN);

    free(c->cors);
    c->cors = NULL;
    if (!f || !origins || !allowed(origins, f->value))
        return;
    c->cors =
        str_fmt("Access-Control-Allow-Origin: %.*s\r\nVary: Origin\r\n"
                "Access-Control-Expose-Headers: X-Segue-Version, X-Request-Id, Retry-After\r\n",
                SPAN_ARG(f->value));
}

static struct span field(const struct http_request_head *head, struct span name)
{
    for (size_t i = 0; i < head->nfields; i++)
        if (span_eq_nocase(head->fields[i].name, name))
            return head->fields[i].value;
    return span_of(NULL, 0);
}

bool cors_preflight(struct client *c, const struct http_request_head *head)
{
    struct span wanted = field(head, SPAN_LIT("access-control-request-headers"));

    if (head->method != HTTP_OPTIONS || !c->cors ||
        field(head, SPAN_LIT("access-control-request-method")).n == 0)
        return false;
    char *headers =
        str_fmt("Access-Control-Allow-Methods: GET, POST\r\n"
                "Access-Control-Allow-Headers: %.*s\r\n"
                "Access-Control-Max-Age: 600\r\n",
                wanted.n ? (int)wanted.n : 27, wanted.n ? wanted.p : "Authorization, Content-Type");
    client_reply(c, 204, NULL, headers, span_of(NULL, 0));
    free(headers);
    return true;
}
